"""Run by a test: one of two processes that shard a model with FSDP2 over gloo and save it in both flavours.

python dcp_two_ranks.py RANK PORT MODEL OUT
"""

import os
import sys
import warnings

import torch
import torch.distributed.checkpoint as dcp
import transformers
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.fsdp import fully_shard


def main(rank: int, port: str, model: str, out: str) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    for layer in loaded.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(loaded, mesh=mesh)
    optimizer = torch.optim.AdamW(loaded.parameters(), lr=1e-3)
    loaded(torch.tensor([[1, 5, 9]]), labels=torch.tensor([[1, 5, 9]])).loss.backward()
    optimizer.step()
    weights, states = get_state_dict(loaded, optimizer)
    full = {name: value.full_tensor().contiguous() for name, value in weights.items()}
    if rank == 0:
        torch.save(full, f"{out}/expected.pt")  # read with weights_only by the test
    dcp.save(weights, storage_writer=dcp.HuggingFaceStorageWriter(f"{out}/safetensors", save_distributed=True))
    dcp.save({"model": weights, "optim": states, "step": 7}, checkpoint_id=f"{out}/distcp")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(int(sys.argv[1]), *sys.argv[2:])
