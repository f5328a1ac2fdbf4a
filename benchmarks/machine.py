"""What the benchmark ran on: the machine and the versions. Names no path and no host."""

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

HERE = ("reasonvec", "numpy", "ml_dtypes", "safetensors", "zstandard", "torch", "transformers")
THERE = ("mergekit", "torch", "transformers", "safetensors")


def describe(directory: Path) -> dict[str, str]:
    """By what it is, the machine, the file system that `directory` lies on, and the versions."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    described = {
        "CPU": f"{cpu_model(Path('/proc/cpuinfo').read_text())}, {os.cpu_count()} logical",
        "memory": f"{pages / 1e9:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": file_system(directory.resolve(), Path("/proc/mounts").read_text()),
        "Python": platform.python_version(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions(HERE).items()),
    }
    if there := mergekit_versions(directory / "mergekit-venv"):
        described["mergekit ran with"] = ", ".join(f"{name} {version}" for name, version in there.items())
    return described


def cpu_model(cpuinfo: str) -> str:
    """The name of the processor, or its architecture where the kernel gives none."""
    names = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def file_system(path: Path, mounts: str) -> str:
    """The type of the file system that a resolved path lies on; of nested mounts the innermost."""
    found = [(Path(fields[1]), fields[2]) for fields in map(str.split, mounts.splitlines())]
    holding = [(len(where.parts), position, kind) for position, (where, kind) in enumerate(found)
               if path.is_relative_to(where)]  # fmt: skip
    return max(holding)[2] if holding else "unknown"


def versions(names: tuple[str, ...]) -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def mergekit_versions(environment: Path) -> dict[str, str]:
    """Of the packages in mergekit's own environment; empty where there is none."""
    python = environment / "bin" / "python"
    if not python.exists():
        return {}
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {THERE}}}))"
    asked = subprocess.run([python, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    return json.loads(asked.stdout) if asked.returncode == 0 else {}
