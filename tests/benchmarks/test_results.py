"""What the benchmark says is what it measured: medians, ratios round by round, goals met or not, and by how much."""

import json
from pathlib import Path

import pytest

from contenders import Offers, Ours, sequence
from document import document
from machine import cpu_model, file_system
from measuring import Contender, Usage
from parts import count_torch
from results import Bar, Part, Table, digits, ratios, spread, usage_table
from sizes import unchanged


def usage(wall, resident=1_000_000):
    return Usage(wall, wall / 2, wall / 4, resident, resident // 2)


def test_spread_and_digits():
    assert spread([3.0, 1.0, 2.0]).text() == "2.00 (1.00–3.00)"
    assert spread([2000.0]).text(1000) == "2.00"
    assert [digits(value) for value in (1234.5, 45.67, 0.56789, 0.0123, 7)] == ["1234", "45.7", "0.57", "0.012", "7"]


def test_ratios_are_taken_within_each_round():
    # the machine was twice as slow in the second round; the ratio of medians would be 3
    usages = {"ours": [usage(1), usage(2), usage(1)], "theirs": [usage(4), usage(8), usage(2)]}
    found = ratios(usages, "theirs", "ours")
    assert (found.median, found.low, found.high) == (4, 2, 4)
    assert ratios({**usages, "crashed": []}, "crashed", "ours") is None
    assert ratios(usages, "theirs", "absent") is None


@pytest.mark.parametrize(
    ("bar", "verdict"),
    [
        (Bar("", 2.0, 2.5, "times", aim=1.5), "met, 20% below, aim not reached"),
        (Bar("", 1.5, 2.5, "times", aim=1.5), "met, 40% below, aim reached"),
        (Bar("", 3.0, 2.5, "times", aim=1.5), "NOT MET, 20% above"),
        (Bar("", 12.0, 8.0, "times faster", at_least=True, aim=10), "met, 50% above, aim reached"),
        (Bar("", 6.0, 8.0, "times faster", at_least=True, aim=10), "NOT MET, 25% below"),
        (Bar("", 0, 0, ""), "met"),
        (Bar("", 3, 0, ""), "NOT MET"),
    ],
)
def test_verdicts(bar, verdict):
    assert bar.verdict() == verdict


def test_tables_line_up_and_reference_is_one():
    table = usage_table("title", {"ours": [usage(1)], "theirs": [usage(4, 3_000_000)]}, "ours")
    assert table.rows[0][:4] == ["ours", "1", "1", "1"]
    assert table.rows[1] == ["theirs", "4.00", "4.00", "3.00", "4.00", "2.00", "1.00", "3.00", "1.50"]
    title, head, rule, *rows = table.text().splitlines()
    assert title.startswith("title")
    assert rows[1].index("4.00", head.index("wall s") - 1) == head.index("wall s")
    assert rule.strip().startswith("---------  ")
    assert table.markdown().splitlines()[2].startswith("| contender | wall ratio |")


def test_a_part_survives_being_kept_and_is_written_down():
    part = Part("sparse", "How.", [Table("Sizes", ["a", "b"], [["1", "2"]])], [Bar("small", 3.0, 4.0, "%")], ["Note."])
    part.machine = {"CPU": "one", "kernel": "Linux"}
    again = Part.from_json(json.loads(json.dumps(part.to_json())))
    assert again.text() == part.text()
    elsewhere = Part("fsync", "How too.", machine={"CPU": "two", "kernel": "Linux"})
    text = document([again, elsewhere])
    for line in ("1 of 1 are met:", "| small | at most 4 % | 3.00 % | met, 25% below |", "* CPU: two", "*Note.*"):
        assert line in text.splitlines()
    assert text.count("* kernel: Linux") == 1


def test_what_machines_say():
    assert cpu_model("processor : 0\nmodel name\t: Fast Chip @ 3 GHz\nmodel name\t: other\n") == "Fast Chip @ 3 GHz"
    mounts = "/dev/a / ext4 rw 0 0\n/dev/b /data xfs rw 0 0\ntmpfs /data/fast tmpfs rw 0 0\n"
    for path, kind in (("/data/fast/x", "tmpfs"), ("/data/faster", "xfs"), ("/home", "ext4")):
        assert file_system(Path(path), mounts) == kind


def test_torch_is_found_in_a_list_of_imports():
    listing = (
        "import time: 12 | 40 |   torch.nn\nimport time: 3 | 3 | torch\nimport time: 3 | 3 | torchless\ntorch | torch\n"
    )
    assert count_torch(listing) == 2


def test_unchanged_is_counted_by_entries(tmp_path):
    file = tmp_path / "vector.json"
    file.write_text(json.dumps({"tensors": {"a": {"shape": [3, 4], "changed": 3}, "b": {"shape": [4], "changed": 1}}}))
    assert unchanged(file) == 0.75


def test_options_that_are_not_offered_are_not_passed(tmp_path):
    old, new = Offers(False, False, False), Offers(True, True, True)
    plain = Ours(tmp_path, old, workers=1).extract(tmp_path / "v", "dense")
    assert {"--encoding", "--workers"}.isdisjoint(plain.command)
    full = Ours(tmp_path, new, workers=1).extract(tmp_path / "v", "sparse")
    assert full.command[-2:] == ("--workers", "1")
    assert full.command[full.command.index("--encoding") + 1] == "sparse"
    several = Ours(tmp_path, new).apply(tmp_path / "v", tmp_path / "o" / "{alpha}", "dense", (0.5, 1.0))
    assert several.output == tmp_path / "o"
    assert [
        word for word, before in zip(several.command[1:], several.command, strict=False) if before == "--alpha"
    ] == [
        "0.5",
        "1",
    ]


def test_a_sequence_quotes_its_words(tmp_path):
    together = sequence("both", [Contender("a", ("echo", "it's", "a b")), Contender("b", ("true",))], tmp_path)
    assert together.command == ("sh", "-c", "echo 'it'\"'\"'s' 'a b' && true")
