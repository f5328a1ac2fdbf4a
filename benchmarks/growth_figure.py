"""Draw how peak memory and time grow with the size of the inputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def draw(points: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Points have `name`, `bytes`, `wall` in seconds and `resident` in bytes; one line for each name."""
    figure, (memory, time) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name in dict.fromkeys(point["name"] for point in points):
        own = [point for point in points if point["name"] == name]
        sizes = [point["bytes"] / 1e9 for point in own]
        memory.plot(sizes, [point["resident"] / 1e6 for point in own], "o-", label=name)
        time.plot(sizes, [point["wall"] for point in own], "o-", label=name)
    memory.set(ylabel="peak resident memory, MB", ylim=(0, None))
    time.set(ylabel="wall time, s", ylim=(0, None))
    for axes in (memory, time):
        axes.set(xlabel="size of the three inputs together, GB", xlim=(0, None))
        axes.grid(alpha=0.3)
    memory.legend(fontsize="small")
    figure.savefig(path, dpi=130)
    plt.close(figure)
