"""One of two processes of a sharded model: attach, compare with what `apply` wrote, take off, compare again.

    RANK=0 python tests/weights/sharded.py TOY OUT

`test_live.py` starts both. TOY has target and vector, OUT/out what `apply` made of them with alpha 0.6.
"""

import os
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from transformers import AutoModelForCausalLM

from reasonvec.errors import IncompatibleError
from reasonvec.weights.live import attached

warnings.simplefilter("ignore")
toy, out = map(Path, sys.argv[1:])
tokens = torch.tensor([[1, 5, 9, 7]])


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)


def whole(model):
    """Every parameter, gathered from all processes."""
    return {name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()
            for name, tensor in model.named_parameters()}  # fmt: skip


def same(model, expected):
    found = whole(model)
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def fully_sharded(mesh):
    model = load(toy / "target")
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def cut(model, mesh, *placements):
    """Every matrix of the layers as a DTensor; 48 columns and 32 are cut in two."""
    for module in model.model.layers.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight = torch.nn.Parameter(distribute_tensor(module.weight.detach(), mesh, placements))
    return model


def check(model, enhanced, target):
    assert same(model, target)
    with attached(model, toy / "vector", alpha=0.6) as attachment:
        assert same(model, enhanced)
        parts = sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in model.parameters())
        assert 0 < attachment.changed < parts
    assert same(model, target)


dist.init_process_group("gloo", init_method=f"file://{out / 'store'}", rank=int(os.environ["RANK"]), world_size=2)
line, square = init_device_mesh("cpu", (2,)), init_device_mesh("cpu", (1, 2))
plain = load(toy / "target")
target, enhanced = whole(plain), whole(load(out / "out"))
with torch.no_grad():
    before = plain(tokens).logits
    after = load(out / "out")(tokens).logits
    for placements in ([Shard(0)], [Shard(1)], [Replicate()]):
        check(cut(load(toy / "target"), line, *placements), enhanced, target)
    check(cut(load(toy / "target"), square, Shard(1), Shard(0)), enhanced, target)
    check(cut(load(toy / "target"), square, Shard(0), Shard(0)), enhanced, target)
    check(fully_sharded(line), enhanced, target)
    # after a forward pass the outermost group keeps what it gathered
    model = fully_sharded(line)
    assert torch.equal(model(tokens).logits, before)
    with attached(model, toy / "vector", alpha=0.6):
        assert torch.equal(model(tokens).logits, after)
    assert torch.equal(model(tokens).logits, before)
    norm = plain.model.norm
    norm.weight = torch.nn.Parameter(DTensor.from_local(norm.weight.detach(), line, [Partial()]))
    try:
        with attached(plain, toy / "vector"):
            raise AssertionError("attached to a sum that is not made yet")
    except IncompatibleError as error:
        assert "model.norm.weight: is sharded as (Partial(sum),)" in str(error), error
    try:
        with attached(FullyShardedDataParallel(load(toy / "target"), device_id=torch.device("cpu")), toy / "vector"):
            raise AssertionError("attached to tensors that are joined into one")
    except IncompatibleError as error:
        assert "or shard with torch.distributed.fsdp.fully_shard" in str(error), error
dist.destroy_process_group()
print("all of it held")
