"""To and from what other tools write: LoRA adapters of peft, distributed checkpoints of torch. Built on the deltas,
staging and safety of `weights`; needs neither torch nor peft."""

from reasonvec.interchange.dcp_import import import_dcp
from reasonvec.interchange.lora_export import export_lora
from reasonvec.interchange.lora_import import import_lora

__all__ = ["export_lora", "import_dcp", "import_lora"]
