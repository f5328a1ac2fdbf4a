"""To and from what other tools write: LoRA adapters of peft. Built on the same deltas, staging and safety as `weights`."""

from reasonvec.interchange.lora_import import import_lora

__all__ = ["import_lora"]
