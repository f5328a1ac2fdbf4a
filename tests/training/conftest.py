"""The base and the data of the tests of training, made once."""

from pathlib import Path

import pytest

from tests.training.small import write_base, write_sums


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("training") / "base")


@pytest.fixture(scope="session")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sums(tmp_path_factory.mktemp("training") / "sums.jsonl")
