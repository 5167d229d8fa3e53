"""python -m benchmarks [SUITE…] [--image NAME] [--check] [--plot FILE]"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import main_job, sessions, setup_once, snapshots, terminals
from .measure import machine, table

SUITES = {
    "main_job": main_job.figures,
    "snapshots": snapshots.figures,
    "setup_once": setup_once.figures,
    "terminals": terminals.figures,
    "sessions": sessions.figures,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure, with docker-py in the same run."
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"out of {', '.join(SUITES)}; all if none is named")
    parser.add_argument("--image", default=os.environ.get("SANDBOX_BENCHMARK_IMAGE", "pytest-sandbox/busybox"))
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bar is missed")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="instead: how a reset grows, as tables and a PNG")
    arguments = parser.parse_args()
    if unknown := set(arguments.suites) - set(SUITES):
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    print(f"{machine()}, image {arguments.image}; repeat with: python -m benchmarks {' '.join(sys.argv[1:])}\n")
    if arguments.plot:
        found = list(snapshots.curves(arguments.image))
        snapshots.plot(found, arguments.plot)
        print("\n\n".join(f"{curve.title}:\n\n{curve.table()}" for curve in found))
        return 0
    figures = []
    for suite in arguments.suites or SUITES:
        for figure in SUITES[suite](arguments.image):
            print(f"  {figure.what} …", file=sys.stderr, flush=True)
            figures.append(figure)
    print(table(figures))
    return int(arguments.check and not all(figure.holds for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
