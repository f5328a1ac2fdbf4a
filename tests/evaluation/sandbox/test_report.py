"""The self-test tells what holds, and what does not without some layer; nothing is run then unless accepted."""

import dataclasses
import json
import os
import re
import sys

import pytest

from reasonvec.errors import SandboxError
from reasonvec.evaluation.sandbox import host, judging, report, require, self_test
from tests.evaluation.sandbox.hostile import HONEST, PROMPT, TEST

REQUIRED = ["process separation", "limits", "no network", "no writes", "no reads outside", "no other processes"]


def run(**options):
    return judging.judge(HONEST, entry_point="add", prompt=PROMPT, test=TEST, timeout_s=20, **options)


@pytest.fixture
def without(monkeypatch, holding):
    """A host that lacks some of what this one has."""

    def change(**layers):
        lesser = dataclasses.replace(host.host(), **layers)
        monkeypatch.setattr(report, "host", lambda: lesser)
        monkeypatch.setattr(judging, "host", lambda: lesser)

    return change


def test_every_attempt_fails_for_want_of_permission(holding):
    assert [one.name for one in holding.guarantees if one.required] == REQUIRED
    reasons = report._probe()["attempts"]
    others = {name: why for name, why in reasons.items() if not re.search(r"\[Errno 13?\]", why or "")}
    assert others == {
        "memory": "MemoryError",
        "raise a limit": "not allowed to raise maximum limit",
        "a thread": "can't start new thread",
    }
    assert set(reasons) == {attempt for attempts in report._ATTEMPTS.values() for attempt in attempts}
    require(holding, accept_unsandboxed=False)


def test_the_report_is_for_the_results(holding):
    document = json.loads(json.dumps(holding.to_json()))
    assert document["platform"] == "linux"
    assert document["guarantees"][0] == {
        "name": "process separation", "layer": "two processes", "holds": True, "required": True,
        "detail": "an honest program: passed; two that cheat: ended early, refused: the answer is a Any",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("layers", "missing"),
    [
        (
            {"ruleset": None, "landlock": "the kernel's Landlock has ABI 1"},
            {"no reads outside": "possible: read a file, list a directory"},
        ),
        (
            {"filter": None, "seccomp": "libseccomp.so.2 cannot be used"},
            {
                "no network": "possible: UDP, a Unix socket",
                "no writes": "possible: change a file's time",
                "no other processes": "possible: trace a process",
            },
        ),
    ],
)
def test_a_layer_that_is_missing_is_named_with_what_is_possible_without_it(without, layers, missing):
    missing = dict(missing)
    without(**layers)
    if os.geteuid() == 0:
        missing.pop("no writes", None)  # the file is root's, and the program is not root any more
    found = self_test()
    assert {one.name for one in found.missing} == set(missing)
    with pytest.raises(SandboxError) as error:
        require(found, accept_unsandboxed=False)
    for name, possible in missing.items():
        assert f"{name}, from " in str(error.value)
        for attempt in possible.removeprefix("possible: ").split(", "):
            assert attempt in str(error.value)
    assert next(text for text in layers.values() if text) in str(error.value)
    assert "--i-accept-unsandboxed-code" in str(error.value)
    require(found, accept_unsandboxed=True)


def test_without_a_layer_nothing_runs_unless_that_is_accepted(without):
    without(ruleset=None, landlock="the kernel does not offer Landlock here")
    with pytest.raises(SandboxError, match="was not run.*Landlock: the kernel does not offer Landlock here"):
        run()
    assert run(accept_unsandboxed=True) == "passed"


def test_a_process_that_cannot_be_confined_is_no_grade(without):
    without(ruleset=os.open(os.devnull, os.O_RDONLY))  # no ruleset: the kernel refuses it
    with pytest.raises(SandboxError, match="could not be confined.*landlock_restrict_self"):
        run()
    found = self_test()
    assert [one.name for one in found.missing] == REQUIRED
    assert "landlock_restrict_self" in found.missing[0].detail
    without(python="/nonexistent/python")
    assert [one.name for one in self_test().missing] == REQUIRED
    with pytest.raises(SandboxError, match="/nonexistent/python"):
        run()
    with pytest.raises(SandboxError, match="lacks 6 of its guarantees") as error:
        require(self_test(), accept_unsandboxed=False)
    assert str(error.value).count("/nonexistent/python") == 1 and ", ".join(REQUIRED) in str(error.value)


def test_other_platforms_are_refused_whatever_is_accepted(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    found = self_test()
    assert [one.name for one in found.missing] == REQUIRED
    for accepted in (False, True):
        with pytest.raises(SandboxError, match=r"Linux alone: .* lacks what confines it.*Docker"):
            require(found, accept_unsandboxed=accepted)
        with pytest.raises(SandboxError, match="Linux alone"):
            run(accept_unsandboxed=accepted)
