"""To and from what other tools write: LoRA adapters of peft. Built on the deltas, staging and safety of `weights`."""

from reasonvec.interchange.lora_export import export_lora
from reasonvec.interchange.lora_import import import_lora

__all__ = ["export_lora", "import_lora"]
