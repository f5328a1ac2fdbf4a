"""Every hostile program fails for the reason it should, changes nothing, leaves nothing, and the next one passes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evaluation.sandbox import hostile

REPOSITORY = Path(__file__).parents[3]
NOBODY = 65534


@pytest.mark.parametrize("name", hostile.ALL)
def test_a_hostile_program_fails_and_leaves_nothing(holding, name):
    from tests.evaluation.sandbox.attack import attack

    assert attack(name) == []


def test_all_of_them_fail_for_an_ordinary_user_too(holding):
    if os.geteuid() != 0:
        pytest.skip("the tests above have run as an ordinary user")
    import pyseccomp

    # the interpreter of these tests may lie below /root, where an ordinary user may not go
    for python in (sys.executable, sys._base_executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        path = f"{REPOSITORY / 'src'}:{REPOSITORY}:{Path(pyseccomp.__file__).parent}"
        ordinary = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "env": {"PYTHONPATH": path}, "cwd": "/",
                    "capture_output": True, "text": True}  # fmt: skip
        try:
            subprocess.run(
                [python, "-Bc", "import pyseccomp, reasonvec, tests, typing; typing.Self"], check=True, **ordinary
            )
        except (OSError, subprocess.CalledProcessError, TypeError):
            continue
        run = subprocess.run([python, "-Bm", "tests.evaluation.sandbox.attack"], **ordinary)
        assert json.loads(run.stdout or run.stderr) == {"user": NOBODY, "attacks": len(hostile.ALL), "wrong": {}}
        return
    pytest.skip(f"user {NOBODY} may run no Python 3.11 here")
