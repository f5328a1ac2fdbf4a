"""Stands in for vLLM's."""
