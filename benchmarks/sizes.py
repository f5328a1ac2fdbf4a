"""The parts of the benchmark about size: peak memory, growth with the model, and the sparse vector."""

import json
import math
import os
from pathlib import Path

from contenders import HERE
from measuring import Contender, CrashedError, Usage, remove
from parts import SHAPES, files
from results import MB, Bar, Part, Spread, Table, digits, spread
from workshop import Workshop, ours, say, size_of, weights_of

MOST = {1: 64.0}
"""Peak resident MB by number of workers; the goal for all others is MOST_OTHERWISE."""
MOST_OTHERWISE = 128.0
UNCHANGED = {55: 24.0, 77: 13.5, 88: 8.0, 94: 4.5}
"""Percent of entries unchanged -> most percent of the dense bfloat16 size that a sparse vector may take."""
MIB = 1 << 20


def memory(shop: Workshop) -> Part:
    """Peak memory of every command at every size."""
    part = Part("memory", "One run each. Models above three thousand million weights are files with holes, in which "
                "the first 65536 entries of each tensor are filled: as many bytes are read and written.")  # fmt: skip
    counts = [1, shop.workers] if shop.offers.workers else [None]
    peaks: dict[int | None, dict[str, Usage]] = {workers: {} for workers in counts}
    for shape in shop.shapes_or(*SHAPES, "qwen2.5-7b"):
        for shards in shop.shards:
            models = shop.checkpoints(shape, shards)
            for workers in counts:
                for command, usage in _commands(shop, part, models, workers).items():
                    peaks[workers][f"{command}, {shape}, {files(shards)}"] = usage
    for workers, found in peaks.items():
        label = f"--workers {workers}" if workers else "workers as by default"
        rows = [[name, digits(used.resident / MB), digits(used.anonymous / MB), digits(used.wall)]
                for name, used in found.items()]  # fmt: skip
        part.tables.append(Table(label, ["command", "peak MB", "anonymous MB", "wall s"], rows))
        if found:
            worst = max(found, key=lambda name: found[name].resident)
            part.bars.append(Bar(f"peak resident memory, {label}; most: {worst}", found[worst].resident / MB,
                                 MOST.get(workers or 1, MOST_OTHERWISE), "MB"))  # fmt: skip
    return part


def _commands(shop: Workshop, part: Part, models: Path, workers: int | None) -> dict[str, Usage]:
    """Every command once. No more than a vector and one output lie on the disk at a time."""
    tool, out, weights = ours(shop, models, workers), shop.scratch / "out", weights_of(models)
    found: dict[str, Usage | None] = {}
    for kind in shop.offers.encodings():
        # a dense delta of bfloat16 donors may need float32
        if not shop.room((6 if kind == "dense" else 3) * weights):
            part.notes.append(f"{models.name}: the disk had no room for a {kind} vector and an output of this size.")
            continue
        say(f"{models.name}, {kind}, workers {workers or 'as by default'}")
        vector = shop.scratch / f"vector-{kind}"
        found[f"extract, {kind}"] = shop.once(keeping(tool.extract(vector, kind)))
        if found[f"extract, {kind}"]:
            found[f"apply, {kind}"] = shop.once(keeping(tool.apply(vector, out, kind)))
        if found.get(f"apply, {kind}"):
            found[f"verify, {kind}"] = shop.once(tool.verify(out, vector))
        shop.clear()
    found["transfer"] = shop.once(tool.transfer(out))
    return {name: usage for name, usage in found.items() if usage}


def keeping(contender: Contender) -> Contender:
    """The same, but its output stays."""
    return Contender(**{**vars(contender), "keep": True})


def growth(shop: Workshop) -> Part:
    """How time and memory of transfer grow with the model; planning for models that no disk here holds."""
    part = Part("growth", "`transfer` on models of growing depth; sizes are those of the three inputs together. Their "
                "weights are one block of random numbers over and over. Planning (`--dry-run`) reads headers only, of "
                "files that are holes otherwise.")  # fmt: skip
    rows = []
    for gigabytes in shop.gigabytes:
        layers = max(1, round(gigabytes / 0.101))
        models = shop.make(f"layers-{layers}", "--layers", str(layers), "--shards", "1", "--repeat")
        nbytes = sum(size_of(models / role, "*.safetensors") for role in ("tuned", "base", "target"))
        tools = [ours(shop, models, workers) for workers in ((1, shop.workers) if shop.offers.workers else (None,))]
        usages = shop.race([tool.transfer(shop.scratch / "out") for tool in tools], min(3, shop.pairs))
        for name, runs in usages.items():
            seconds = spread([run.wall for run in runs])
            resident, anonymous = max(run.resident for run in runs), max(run.anonymous for run in runs)
            rows.append([name, f"{nbytes / 1e9:.2f}", seconds.text(), digits(resident / MB), digits(anonymous / MB)])
            part.points.append({"name": name, "bytes": nbytes, "wall": seconds.median, "resident": resident})
        remove(models)  # quicker made again than worth its place on the disk
    columns = ["command", "inputs GB", "wall s", "peak MB", "anonymous MB"]
    part.tables.append(Table("transfer, warm", columns, rows))
    _planning(shop, part)
    return part


def _planning(shop: Workshop, part: Part) -> None:
    rows = []
    for shape, shards in (("qwen2.5-7b", 25), ("700b", 150)):
        models = shop.make(f"{shape}-{shards}-empty", "--shape", shape, "--shards", str(shards), "--filled", "0")
        usage = shop.once(ours(shop, models).transfer(shop.scratch / "out", "--dry-run"))
        if usage:
            label = f"transfer --dry-run, {shape}, {files(shards)}"
            rows.append([label, digits(usage.wall), digits(usage.cpu), digits(usage.resident / MIB)])
            part.bars.append(Bar(f"{label}, peak memory", usage.resident / MIB, 200, "MiB"))
            part.bars.append(Bar(f"{label}, wall", usage.wall, 10, "s"))
    part.tables.append(Table("planning, one run", ["command", "wall s", "CPU s", "peak MiB"], rows))


def sparse(shop: Workshop) -> Part:
    """Speed of making and reading a sparse vector on one core, and its size."""
    part = Part("sparse", "`extract --encoding sparse --workers 1`, pinned to one core: bytes of one donor over the "
                "wall time of the whole process, and over its CPU time. Reading: a process of its own decodes every "
                "delta in tiles of 65536 entries on that core and times only that; 2 bytes an entry. Sizes: the whole "
                "directory over the bytes of a bfloat16 checkpoint.")  # fmt: skip
    if not shop.offers.encoding:
        part.notes.append("This version of reasonvec writes dense vectors only.")
        return part
    core = min(os.sched_getaffinity(0))
    rows = []
    for shape in shop.shapes_or(*SHAPES):
        models = shop.checkpoints(shape, shop.shards[0])
        by_wall, by_cpu, decoding = _speeds(shop, models, core)
        if by_wall and by_cpu:
            rows.append([f"extract, {shape}", by_wall.text(), by_cpu.text()])
            part.bars.append(Bar(f"extract to a sparse vector, one core, {shape}", by_wall.median, 200, "MB/s",
                                 at_least=True))  # fmt: skip
        if decoding:
            rows.append([f"decode, {shape}", decoding.text(), ""])
            part.bars.append(Bar(f"decode a sparse vector, one core, {shape}", decoding.median, 700, "MB/s",
                                 at_least=True))  # fmt: skip
        shop.clear()
    part.tables.append(Table(f"speed on one core, warm, {shop.pairs} runs", ["", "MB/s by wall", "MB/s by CPU"], rows))
    _sparse_sizes(shop, part)
    return part


def _speeds(shop: Workshop, models: Path, core: int) -> tuple[Spread | None, Spread | None, Spread | None]:
    """MB/s of extract by wall and by CPU time, and of decoding; None for what crashed."""
    vector = shop.scratch / "vector"
    extract = keeping(ours(shop, models, workers=1, core=core).extract(vector, "sparse"))
    runs = [run for run in (shop.once(extract) for _ in range(shop.pairs)) if run]
    nbytes = 2 * weights_of(models)
    speeds = [spread([nbytes / MB / seconds for seconds in all_seconds]) if runs else None
              for all_seconds in ([run.wall for run in runs], [run.cpu for run in runs])]  # fmt: skip
    decode = Contender("decode a sparse vector", (extract.command[0], str(HERE / "decode_vector.py"), str(vector)),
                       (vector,), core=core)  # fmt: skip
    decoding = []
    for _ in range(shop.pairs if runs else 0):
        if shop.once(decode):
            said = json.loads(shop.log.read_text())
            decoding.append(said["bytes"] / MB / said["seconds"])
    return speeds[0], speeds[1], spread(decoding) if decoding else None


def _sparse_sizes(shop: Workshop, part: Part) -> None:
    rows = []
    shape = shop.shapes_or(*SHAPES)[0]
    for percent, most in UNCHANGED.items():
        name = f"unchanged-{percent}"
        models = shop.make(name, "--shape", shape, "--shards", "1", "--unchanged", str(percent / 100))
        vector = shop.scratch / "vector"
        try:
            shop.prepare(ours(shop, models).extract(vector, "sparse"))
        except CrashedError as error:
            shop.crashes.append(str(error))
            continue
        share = 100 * size_of(vector) / (2 * weights_of(models))
        rows.append([f"{percent} % unchanged", f"{100 * unchanged(vector / 'vector.json'):.1f}", digits(share)])
        part.bars.append(Bar(f"size of a sparse vector, {percent} % unchanged", share, most, "% of bfloat16"))
        shop.clear()
        remove(models)  # quicker made again than worth its place on the disk
    part.tables.append(Table(f"size, {shape}", ["", "unchanged, counted %", "% of bfloat16"], rows))


def unchanged(document: Path) -> float:
    """The share of entries that are equal in both donors, as vector.json counts them."""
    deltas = json.loads(document.read_text())["tensors"].values()
    return 1 - sum(delta["changed"] for delta in deltas) / sum(math.prod(delta["shape"]) for delta in deltas)
