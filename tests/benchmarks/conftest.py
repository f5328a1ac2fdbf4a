"""The benchmark is scripts beside the package, not part of it; these tests import them as `python` would run them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
