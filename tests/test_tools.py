"""The check of a GPU, run dry: every line of its table on the CPU, with a tiny shape."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_gpu_check_runs_dry() -> None:
    command = [str(ROOT / "tools" / "gpu_check.sh"), "--dry"]
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"^\| (.*?) \| (.*) \|$", done.stdout, flags=re.MULTILINE))
    assert rows["device"].startswith("CPU, torch")
    assert float(re.search(r"cosine of the gradients (\S+)", rows["one step, CPU fp32 and device bf16"])[1]) > 0.98
    assert re.search(r"Pearson 0\.\d{4} on validation", rows["MiniLM, packed, all epochs"])
    steps = [name for name in rows if name.startswith(("full, ", "lora_all, "))]
    assert steps == [f"{a}, {b} pairs a step" for a in ("full", "lora_all") for b in ("packed, 128", "pair, 64")]
    assert all(float(re.match(r"(\S+) ms a step", rows[name])[1]) > 0 for name in steps)
