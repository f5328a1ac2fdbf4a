"""The base and the data of the tests of training, made once; and one thread for models that are too small for two."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.training.small import write_base, write_sums


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine two threads that wait for each other are ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("training") / "base")


@pytest.fixture(scope="session")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sums(tmp_path_factory.mktemp("training") / "sums.jsonl")
