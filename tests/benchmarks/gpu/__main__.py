"""Measure on a GPU (`make bench-gpu`), each row in a process of its own, and print ratios.

Rows come as they are measured, those first that have been measured least: what is cut off by a
limit says the least.
"""

import importlib
import json
import subprocess
import sys
import time

import torch

ROWS = {
    "pretraining": "a step of pre-training",
    "parts": "what each part of the fast step is worth",
    "end_to_end": "a whole pre-training from JPEG files",
    "supervised": "steps of linear classification, fine-tuning, segmentation",
    "detection": "steps of detection",
    "checkpoint": "steps beside a checkpoint",
    "knn": "the kNN monitor",
}


def main() -> int:
    if len(sys.argv) == 3 and sys.argv[1] == "--one":
        for result in importlib.import_module(f"tests.benchmarks.gpu.{sys.argv[2]}").run():
            print(json.dumps(result), flush=True)
        return 0
    wanted = sys.argv[1:] or list(ROWS)
    if unknown := set(wanted) - set(ROWS):
        print(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(ROWS)}")
        return 64
    if not torch.cuda.is_available():
        print("there is no GPU (CUDA) here: nothing to measure")
        return 69
    device = torch.cuda.get_device_properties(0)
    print(
        f"{device.name}, {device.total_memory / 1e9:.0f} GB, torch {torch.__version__}, "
        f"{time.strftime('%Y-%m-%d')}"
    )
    print("| what | ratio | goal | |\n|---|---|---|---|", flush=True)
    failed = False
    for name in wanted:
        started = time.monotonic()
        command = [sys.executable, "-m", "tests.benchmarks.gpu", "--one", name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    print(_row(json.loads(line)), flush=True)
        failed |= process.returncode != 0
        print(f"<!-- {name}: {time.monotonic() - started:.0f} s -->", flush=True)
    return int(failed)


def _row(row: dict[str, object]) -> str:
    sign = "≤ " if row.get("lower_is_better") else "≥ "
    goal = "" if row["goal"] is None else f"{sign}{row['goal']}"
    return f"| {row['name']} | {row['ratio']} | {goal} | {row['detail']} |"


sys.exit(main())
