"""One tiny checkpoint and one vector for all, and a file of problems."""

import json

import pytest

from reasonvec.weights import extract
from tests.evaluation.measuring.models import GOLDS, QUESTIONS, checkpoint


@pytest.fixture(scope="session")
def target(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("models") / "target")


@pytest.fixture(scope="session")
def vector(target, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vector")
    tuned = checkpoint(folder / "tuned", seed=1)
    extract(tuned=tuned, base=target, out=folder / "vector")
    return folder / "vector"


@pytest.fixture
def problems(tmp_path):
    file = tmp_path / "mine.jsonl"
    rows = [
        {"id": f"mine/{n}", "question": q, "answer": str(g)}
        for n, (q, g) in enumerate(zip(QUESTIONS, GOLDS, strict=True))
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
