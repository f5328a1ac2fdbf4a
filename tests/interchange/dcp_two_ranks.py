"""Run by a test: one of two processes that shard a model with FSDP2 over gloo and save it in both flavours.

python dcp_two_ranks.py RANK MODEL OUT
"""

import os
import sys
import warnings

import torch
import torch.distributed.checkpoint as dcp
import transformers
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.fsdp import fully_shard


def main(rank: int, model: str, out: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    # they meet in a file: a port that was free a moment ago may be somebody else's now
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=2)
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
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(int(sys.argv[1]), *sys.argv[2:])
