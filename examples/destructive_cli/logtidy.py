#!/usr/bin/env python3
"""Keep a directory of logs small: compress what is older than --compress days, delete what is older than --delete.

The program under test. It removes files for a living, so nobody wants it tried out on their own machine.
"""

# ruff: noqa: T201  # printing is what it is for

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import sys
import time
from pathlib import Path

DAY = 24 * 60 * 60


def main() -> int:
    parser = argparse.ArgumentParser(description="Compress and delete old logs.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--compress", type=float, default=7, metavar="DAYS", help="older ones become .gz (default: 7)")
    parser.add_argument("--delete", type=float, default=30, metavar="DAYS", help="older ones go (default: 30)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    arguments = parser.parse_args()
    if arguments.compress > arguments.delete:
        parser.error("--compress must not be greater than --delete")
    if not arguments.directory.is_dir():
        print(f"logtidy: {arguments.directory} is not a directory", file=sys.stderr)
        return 1

    now = time.time()
    for path in sorted(logs(arguments.directory)):
        age = (now - path.stat().st_mtime) / DAY
        if age > arguments.delete:
            print(f"delete {path}")
            if not arguments.dry_run:
                path.unlink()
        elif age > arguments.compress and path.suffix != ".gz":
            print(f"compress {path}")
            if not arguments.dry_run:
                compress(path)
    return 0


def logs(directory: Path) -> list[Path]:
    """The log files below a directory; links are neither followed nor touched."""
    found = []
    for folder, _, names in os.walk(directory):
        paths = (Path(folder, name) for name in names if name.endswith((".log", ".log.gz")))
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    return found


def compress(path: Path) -> None:
    """Replace a file by its .gz of the same age. Whenever it is interrupted, one of the two is whole."""
    unfinished = path.with_name(path.name + ".gz.unfinished")
    with path.open("rb") as source, gzip.open(unfinished, "wb") as target:
        shutil.copyfileobj(source, target)
    shutil.copystat(path, unfinished)
    unfinished.rename(path.with_name(path.name + ".gz"))
    path.unlink()


if __name__ == "__main__":
    sys.exit(main())
