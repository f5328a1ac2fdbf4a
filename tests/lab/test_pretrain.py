"""Pre-training: Muon's arithmetic against a singular value decomposition, and that a tiny model learns."""

from itertools import cycle, islice

import pytest
import torch

from reasonvec.lab.models import build_model
from reasonvec.lab.pretrain import Muon, orthogonalised, pretrain
from reasonvec.lab.recipe import Pretraining
from reasonvec.lab.world import Habit, donor_documents, world_tokenizer
from tests.lab.tiny import SHAPE


@pytest.mark.parametrize("shape", [(16, 16), (32, 16), (16, 48)])
def test_orthogonalising_keeps_directions_and_evens_out_singular_values(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    for before, after in zip(matrices, orthogonalised(matrices), strict=True):
        u, _, v = torch.linalg.svd(before.double(), full_matrices=False)
        in_its_basis = u.mT @ after.double() @ v.mT
        assert (in_its_basis - torch.diag(in_its_basis.diag())).abs().max() < 1e-4
        assert in_its_basis.diag().min() > 0.3
        assert in_its_basis.diag().max() < 1.3


def test_muon_steps_as_torchs_own() -> None:
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(32, 16, generator=generator) for _ in range(3)]
    ours = [torch.nn.Parameter(weight.clone()) for weight in start]
    theirs = [torch.nn.Parameter(weight.clone()) for weight in start]
    muon = Muon(ours, momentum=0.95)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.0, momentum=0.95)
    for _ in range(4):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(32, 16, generator=generator)
            b.grad = a.grad.clone()
        muon.step(0.02)
        reference.step()
    for before, a, b in zip(start, ours, theirs, strict=True):
        moved = (b - before).norm()
        assert moved > 0.1
        assert (a - b).norm() < 0.03 * moved  # torch's is in bfloat16


def test_a_tiny_model_learns_what_it_reads_and_the_same_seed_gives_the_same_model() -> None:
    tokenizer = world_tokenizer()
    lesson = list(islice(donor_documents(0, Habit(0.0)), 8))
    settings = Pretraining(steps=60, batch=8, warmup=3)
    states, losses = [], []
    for _ in range(2):
        model = build_model(SHAPE, tokenizer, seed=0)
        losses.clear()
        pretrain(model, tokenizer, cycle(lesson), settings, on_step=lambda step, loss: losses.append(loss))
        states.append(model.state_dict())
    assert len(losses) == 60
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_another_seed_initialises_another_model_and_leaves_the_global_generator_alone() -> None:
    tokenizer = world_tokenizer()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, other = build_model(SHAPE, tokenizer, seed=0), build_model(SHAPE, tokenizer, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)
