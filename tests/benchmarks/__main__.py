"""Run the benchmarks (`make bench`), each in a process of its own, and print their ratios."""

import importlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

NAMES = sorted(p.stem for p in Path(__file__).parent.glob("[a-z]*.py"))


def main() -> int:
    if len(sys.argv) == 3 and sys.argv[1] == "--one":
        for result in importlib.import_module(f"tests.benchmarks.{sys.argv[2]}").run():
            print(json.dumps(result))
        return 0
    unknown = set(sys.argv[1:]) - set(NAMES)
    if unknown:
        print(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
        return 64
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    print("| what | ratio | goal | |\n|---|---|---|---|")
    failed = False
    for name in sys.argv[1:] or NAMES:
        command = [sys.executable, "-m", "tests.benchmarks", "--one", name]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        failed |= result.returncode != 0
        for line in result.stdout.splitlines():
            if line.startswith("{"):
                row = json.loads(line)
                sign = "≤ " if row.get("lower_is_better") else "≥ "
                goal = "" if row["goal"] is None else f"{sign}{row['goal']}"
                print(
                    f"| {row['name']} | {row['ratio']} | {goal} | {row['detail']} |",
                    flush=True,
                )
    return int(failed)


sys.exit(main())
