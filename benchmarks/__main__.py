"""python -m benchmarks [--image NAME] [--check]"""

from __future__ import annotations

import argparse
import os
import sys

from . import main_job
from .measure import machine, table


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure, with docker-py in the same run."
    )
    parser.add_argument("--image", default=os.environ.get("SANDBOX_BENCHMARK_IMAGE", "pytest-sandbox/busybox"))
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bar is missed")
    arguments = parser.parse_args()
    print(f"{machine()}, image {arguments.image}; repeat with: python -m benchmarks --image {arguments.image}\n")
    figures = []
    for figure in main_job.figures(arguments.image):
        print(f"  {figure.what} …", file=sys.stderr, flush=True)
        figures.append(figure)
    print(table(figures))
    return int(arguments.check and not all(figure.holds for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
