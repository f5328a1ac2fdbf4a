"""Stands in for vLLM's."""


class LoRARequest:
    pass
