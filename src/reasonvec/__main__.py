"""`python -m reasonvec`."""

from reasonvec.cli import main

main(prog_name="reasonvec")
