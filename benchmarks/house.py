"""What the project asks of a machine: import time, time of every notebook, peak memory of a training on a CPU."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

_IMPORT = "import sys, time; t = time.perf_counter(); import {0}; print(time.perf_counter() - t)"
_DEMONSTRATION = """
import resource, sys
from normviz.__main__ import main
main(["train", "--preset", "swiglu", "--arm", "bn", "--device", "cpu", "--quiet", "--steps", "40"])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak * (1 if sys.platform == "darwin" else 1024))
"""


def _fresh(code: str) -> str:
    """The last line that a fresh Python prints."""
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return out.stdout.split()[-1]


def measure(tell=print) -> dict:
    """Median seconds of imports in fresh processes, and the peak resident memory of a training in bytes."""
    found = {}
    for name in ("normviz", "normviz.explore", "torch"):
        found[f"import {name}"] = statistics.median(float(_fresh(_IMPORT.format(name))) for _ in range(5))
        tell(f"import {name:28} {found[f'import {name}']:7.3f} s")
    start = time.perf_counter()
    found["peak_bytes"] = int(_fresh(_DEMONSTRATION)) if os.name == "posix" else None
    took, peak = time.perf_counter() - start, (found["peak_bytes"] or 0) / 2**20
    tell(f"training of 40 steps on a CPU: {took:.1f} s, peak {peak:.0f} MiB")
    return found


def measure_notebooks(tell=print) -> dict:
    """Seconds to execute each notebook from a fresh kernel; nothing is written back."""
    import run_notebooks

    found = {}
    for path in run_notebooks.notebooks():
        start = time.perf_counter()
        run_notebooks.execute(path)
        found[path.name] = round(time.perf_counter() - start, 1)
        tell(f"{path.name:36} {found[path.name]:6.1f} s")
    return found


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
