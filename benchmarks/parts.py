"""The parts of the benchmark that race programs against each other: transfer, apply, alphas, fsync; and start-up."""

from pathlib import Path

from contenders import REASONVEC, Contender, copying, install_mergekit, mergekit, notebook, sequence, without_fsync
from measuring import CrashedError
from results import Bar, Part, Table, digits, ratios, spread, usage_table
from workshop import Workshop, ours, size_of, weights_of

TIMES_FASTER = {"qwen2.5-0.5b": 8.0}
"""Than mergekit, by shape; the goal for all others is OTHERWISE."""
OTHERWISE = 6.0
SHAPES = ("qwen2.5-0.5b", "qwen2.5-1.5b")


def transfer(shop: Workshop) -> Part:
    """One pass over three checkpoints against mergekit, a script with transformers, and copying."""
    part = Part("transfer", "The whole process from start to end computes target + tuned − base in bfloat16 from three "
                "checkpoints and writes it. `reasonvec` puts its output on the disk before it ends; the others, `sync "
                "-f` excepted, leave that to the system.")  # fmt: skip
    environment, out = shop.root / "mergekit-venv", shop.scratch / "out"
    missing = install_mergekit(environment)
    if missing:
        shop.crashes.append(missing)
    for shape in shop.shapes_or(*SHAPES):
        for shards in shop.shards:
            models = shop.checkpoints(shape, shards)
            donors = [models / "tuned", models / "base"]
            here = ours(shop, models).transfer(out)
            field = [here]
            if shop.offers.workers:
                field.append(ours(shop, models, workers=1).transfer(out))
            field += [] if missing else [mergekit(models, out, environment)]
            script = notebook(models, out)
            field += [script] if script else []
            field += [copying(donors, models / "target", out, sync=sync) for sync in (False, True)]
            label = f"{shape}, {files(shards)}"
            usages = shop.compare(part, label, field, here.name)
            if faster := ratios(usages, "mergekit", here.name):
                goal = TIMES_FASTER.get(shape, OTHERWISE)
                part.bars.append(Bar(f"transfer against mergekit, wall, {label}", faster.median, goal, "times faster",
                                     at_least=True, aim=10.0))  # fmt: skip
    return part


def apply(shop: Workshop) -> Part:
    """Vectors made, added and verified, against copying."""
    part = Part("apply", "`extract` and `apply` put their output on the disk before they end, `cp` alone does not. The "
                "limit reads the dense vector and copies the target.")  # fmt: skip
    for shape in shop.shapes_or(*SHAPES):
        for shards in shop.shards:
            label = f"{shape}, {files(shards)}"
            try:
                _apply(shop, part, label, shop.checkpoints(shape, shards))
            except CrashedError as error:
                shop.crashes.append(f"{label}: {error}")
            shop.clear()
    return part


def _apply(shop: Workshop, part: Part, label: str, models: Path) -> None:
    tool, out, target = ours(shop, models), shop.scratch / "out", models / "target"
    encodings = shop.offers.encodings()
    vectors = {kind: shop.prepare(tool.extract(shop.scratch / f"vector-{kind}", kind)) for kind in encodings}
    applies = {kind: tool.apply(vectors[kind], out, kind) for kind in encodings}
    made = shop.prepare(tool.apply(vectors["dense"], shop.scratch / "enhanced", "dense"))
    limit = copying([vectors["dense"]], target, out)
    field = [tool.extract(out, kind) for kind in encodings]
    field += [*applies.values(), tool.verify(made, vectors["dense"])]
    field += [limit, copying([vectors["dense"]], target, out, sync=True)]
    usages = shop.compare(part, label, field, limit.name)
    dense = applies["dense"].name
    if ratio := ratios(usages, dense, limit.name):
        part.bars.append(Bar(f"apply (dense) against read + cp, wall, {label}", ratio.median, 2.5, "times", aim=1.5))
        nanoseconds = [1e9 * run.user / weights_of(models) for run in usages[dense]]
        part.bars.append(Bar(f"user CPU of apply (dense), {label}", spread(nanoseconds).median, 1.6, "ns/weight",
                             aim=0.5))  # fmt: skip
    if "sparse" in applies and (ratio := ratios(usages, applies["sparse"].name, dense)):
        part.bars.append(Bar(f"apply (sparse) against apply (dense), wall, {label}", ratio.median, 2.0, "times"))


def alphas(shop: Workshop) -> Part:
    """Three alphas in one pass against three runs."""
    part = Part("alphas", "One `apply` with three alphas against three one after another, each with its own start-up.")
    if not shop.offers.alphas:
        part.notes.append("This version of reasonvec takes one alpha at a time.")
        return part
    several = (0.5, 1.0, 1.5)
    for shape in shop.shapes_or(*SHAPES):
        models = shop.checkpoints(shape, shop.shards[0])
        tool, folder = ours(shop, models), shop.scratch / "alphas"
        vector = shop.prepare(tool.extract(shop.scratch / "vector", "dense"))
        make = ("mkdir", str(folder))
        singles = [tool.apply(vector, folder / f"{alpha:g}", "dense", (alpha,)) for alpha in several]
        together = tool.apply(vector, folder / "{alpha}", "dense", several)
        start = Contender("", make, together.reads)
        one = sequence("three alphas in one pass", [start, together], folder)
        three = sequence("three runs", [start, *singles], folder)
        usages = shop.race([one, three])
        part.tables.append(usage_table(f"{shape}, warm, {shop.pairs} rounds", usages, one.name))
        if ratio := ratios(usages, one.name, three.name):
            part.bars.append(Bar(f"three alphas in one pass against three runs, wall, {shape}", ratio.median, 1.0,
                                 "times"))  # fmt: skip
        shop.clear()
    return part


def fsync(shop: Workshop) -> Part:
    """What putting the output on the disk costs."""
    part = Part("fsync", "`apply` as it is, and with a library loaded before it in which fsync, fdatasync and "
                "sync_file_range return at once.")  # fmt: skip
    for shape in shop.shapes_or(*SHAPES):
        models = shop.checkpoints(shape, shop.shards[0])
        tool, out = ours(shop, models), shop.scratch / "out"
        vector = shop.prepare(tool.extract(shop.scratch / "vector", "dense"))
        synced = tool.apply(vector, out, "dense")
        unsynced = without_fsync(synced, shop.scratch)
        if not unsynced:
            part.notes.append("No C compiler was found, so the comparison was left out.")
            return part
        usages = shop.race([synced, unsynced])
        part.tables.append(usage_table(f"{shape}, warm, {shop.pairs} rounds", usages, unsynced.name))
        shop.clear()
    return part


def startup(shop: Workshop) -> Part:
    """How long until something is said."""
    part = Part("startup", "Wall and CPU time of the whole process, warm. Imports as Python lists them with `-X "
                "importtime`.")  # fmt: skip
    models = shop.checkpoints(shop.shapes_or(*SHAPES)[0], max(shop.shards))
    tool = ours(shop, models)
    vector = shop.prepare(tool.extract(shop.scratch / "vector", "dense"))
    greeting = Contender("reasonvec --help", (*REASONVEC, "--help"))
    check = tool.check(vector)
    usages = shop.race([greeting, check], 2 * shop.pairs)
    rows = [[name, spread([run.wall for run in runs]).text(), spread([run.cpu for run in runs]).text(),
             digits(max(run.resident for run in runs) / 1e6)] for name, runs in usages.items()]  # fmt: skip
    size = f"{files(max(shop.shards))}, {size_of(models / 'target') / 1e9:.1f} GB"
    part.tables.append(Table(f"start-up; check on {size}", ["command", "wall s", "CPU s", "peak MB"], rows))
    if runs := usages.get(greeting.name):
        part.bars.append(Bar("reasonvec --help, wall", spread([run.wall for run in runs]).median, 0.4, "s"))
    if runs := usages.get(check.name):
        seconds = spread([run.cpu for run in runs]).median
        part.bars.append(Bar(f"reasonvec check, CPU, {files(max(shop.shards))}", seconds, 1.5, "s"))
    imported = sum(torch_imports(shop, each) for each in (greeting, check))
    part.bars.append(Bar("modules of torch that the two import", imported, 0, ""))
    shop.clear()
    return part


def torch_imports(shop: Workshop, contender: Contender) -> int:
    """How many modules of torch a command of ours imports."""
    python, *rest = contender.command
    if not shop.once(Contender(contender.name, (python, "-X", "importtime", *rest))):
        return 0
    return count_torch(shop.log.read_text())


def count_torch(listing: str) -> int:
    """Modules of torch in what `-X importtime` wrote, where a line is `import time: self | cumulative | module`."""
    lines = [line for line in listing.splitlines() if line.startswith("import time:")]
    return sum(line.rpartition("|")[2].strip().split(".")[0] == "torch" for line in lines)


def files(shards: int) -> str:
    """As titles say it."""
    return "one file" if shards == 1 else f"{shards} shards"
