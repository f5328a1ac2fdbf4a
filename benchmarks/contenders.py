"""The programs that are compared, as command lines, and what they need installed. Runs none of the comparisons."""

import importlib.util
import json
import os
import shlex
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measuring import Contender

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements-mergekit.txt"
REASONVEC = (sys.executable, "-m", "reasonvec")


@dataclass(frozen=True)
class Offers:
    """What the installed reasonvec can do; older versions lack some of it."""

    encoding: bool
    workers: bool
    alphas: bool

    def encodings(self) -> tuple[str, ...]:
        """The ways in which it writes a vector."""
        return ("dense", "sparse") if self.encoding else ("dense",)


def offers() -> Offers:
    """Read off the help texts."""
    texts = {name: subprocess.run([*REASONVEC, name, "--help"], capture_output=True, text=True, check=True).stdout
             for name in ("extract", "apply")}  # fmt: skip
    return Offers("--encoding" in texts["extract"], "--workers" in texts["extract"], "{alpha}" in texts["apply"])


@dataclass(frozen=True)
class Ours:
    """The command lines of reasonvec for one set of checkpoints, a directory with base, tuned and target."""

    models: Path
    offers: Offers
    workers: int | None = None
    core: int | None = None

    def extract(self, out: Path, encoding: str) -> Contender:
        """The vector of the donors."""
        donors = self._paths("tuned", "base")
        chosen = ("--encoding", encoding) if self.offers.encoding else ()
        return self._contender(f"extract, {encoding}", ("extract", *donors, *chosen, "--out", str(out)),
                               self._donors(), out)  # fmt: skip

    def apply(self, vector: Path, out: Path, encoding: str, alphas: Sequence[float] = (1.0,)) -> Contender:
        """The target with a vector added; with several alphas, `out` is a pattern such as DIR/{alpha}."""
        words = [word for alpha in alphas for word in ("--alpha", f"{alpha:g}")]
        words = ["apply", "--vector", str(vector), *self._paths("target"), *words, "--out", str(out)]
        return self._contender(f"apply, {encoding}", words, (vector, self.models / "target"),
                               out if len(alphas) == 1 else out.parent)  # fmt: skip

    def transfer(self, out: Path, *options: str) -> Contender:
        """Target plus the difference of the donors, in one pass."""
        words = ("transfer", *self._paths("tuned", "base", "target"), *options, "--out", str(out))
        dry = "--dry-run" in options
        reads = () if dry else (*self._donors(), self.models / "target")
        return self._contender("transfer", words, reads, None if dry else out)

    def verify(self, made: Path, vector: Path) -> Contender:
        """Compute again what `apply` made of `vector`."""
        return self._contender("verify", ("verify", str(made)), (made, vector, self.models / "target"))

    def check(self, vector: Path) -> Contender:
        """Whether a vector fits the target, from headers."""
        words = (*REASONVEC, "check", "--vector", str(vector), *self._paths("target"))
        return Contender("reasonvec check", words, (vector, self.models / "target"))

    def _paths(self, *roles: str) -> tuple[str, ...]:
        return tuple(word for role in roles for word in (f"--{role}", str(self.models / role)))

    def _donors(self) -> tuple[Path, ...]:
        return (self.models / "tuned", self.models / "base")

    def _contender(
        self, name: str, words: Sequence[str], reads: tuple[Path, ...], output: Path | None = None
    ) -> Contender:
        chosen: tuple[str, ...] = ()
        if self.workers and self.offers.workers:
            name, chosen = f"{name}, --workers {self.workers}", ("--workers", str(self.workers))
        return Contender(f"reasonvec {name}", (*REASONVEC, *words, *chosen), reads, output, core=self.core)


def mergekit(models: Path, out: Path, environment: Path) -> Contender:
    """The same sum by mergekit, which `install_mergekit` put into `environment`."""
    recipe = out.with_name("mergekit.yaml")
    weights = {"target": 1.0, "tuned": 1.0, "base": -1.0}
    recipe.write_text(json.dumps({  # JSON is YAML
        "merge_method": "linear",
        "models": [{"model": str(models / role), "parameters": {"weight": weight}} for role, weight in weights.items()],
        "parameters": {"normalize": False},
        "dtype": "bfloat16",
    }))  # fmt: skip
    command = (str(environment / "bin" / "mergekit-yaml"), str(recipe), str(out))
    # PYTHONPATH could put packages of this environment before those that mergekit was installed with
    return Contender("mergekit", command, _all(models), out, {"PYTHONPATH": ""})


def install_mergekit(environment: Path) -> str | None:
    """Put mergekit into a virtual environment of its own; why that did not work, or None."""
    stamp = environment / "installed.txt"
    wanted = REQUIREMENTS.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return None
    print(f"bench: installing mergekit into {environment} (some minutes and 2 GB)", file=sys.stderr, flush=True)
    venv.create(environment, with_pip=True)
    torch = next(line for line in wanted.splitlines() if line.startswith("torch=="))
    for packages in ([torch], ["-r", str(REQUIREMENTS)]):
        command = [environment / "bin" / "python", "-m", "pip", "install", "--quiet", *packages]
        if subprocess.run(command).returncode:
            return f"mergekit could not be installed: pip install {' '.join(packages)} failed."
    stamp.write_text(wanted)
    return None


def notebook(models: Path, out: Path) -> Contender | None:
    """The same sum by transformers, as somebody writes it in a notebook; None where transformers is not installed."""
    if not importlib.util.find_spec("transformers"):
        return None
    paths = [str(models / role) for role in ("target", "tuned", "base")]
    command = (sys.executable, str(HERE / "notebook_script.py"), *paths, "1.0", str(out))
    return Contender("transformers script", command, _all(models), out)


def copying(inputs: Sequence[Path], target: Path, out: Path, *, sync: bool = False) -> Contender:
    """Read all other inputs and copy the target: what no program that does the work can be far below."""
    script = 'out=$1; target=$2; shift 2; cat -- "$@" > /dev/null && cp -r --reflink=never -- "$target" "$out"'
    if sync:
        script += ' && sync -f "$out"'
    files = [file for directory in inputs for file in sorted(directory.rglob("*.safetensors"))]
    command = ("sh", "-c", script, "sh", str(out), str(target), *map(str, files))
    name = "read the others, cp the target" + (", sync -f" if sync else "")
    return Contender(name, command, (*inputs, target), out)


def sequence(name: str, contenders: Sequence[Contender], output: Path) -> Contender:
    """Several runs one after another, as one program."""
    lines = " && ".join(shlex.join(each.command) for each in contenders)
    return Contender(name, ("sh", "-c", lines), contenders[0].reads, output)


def without_fsync(contender: Contender, directory: Path) -> Contender | None:
    """The same with calls that put data on the disk doing nothing; None where no C compiler is found."""
    source, library = directory / "nosync.c", directory / "nosync.so"
    source.write_text("""
        int fsync(int file) { return 0; }
        int fdatasync(int file) { return 0; }
        int sync_file_range(int file, long long offset, long long count, unsigned flags) { return 0; }
    """)
    compiler = os.environ.get("CC", "cc")
    try:
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return Contender(f"{contender.name}, no fsync", contender.command, contender.reads, contender.output,
                     {"LD_PRELOAD": str(library)})  # fmt: skip


def _all(models: Path) -> tuple[Path, ...]:
    return tuple(models / role for role in ("tuned", "base", "target"))
