"""Coverage-guided fuzzing of everything that reads files of strangers. `make fuzz` runs it; fuzz/README.md explains."""
