"""The command `note`."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="note")
    parser.add_argument("--version", action="version", version=version("notebook-example"))
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("add").add_argument("text")
    commands.add_parser("list")
    arguments = parser.parse_args()

    home = Path(os.environ.get("NOTEBOOK", str(Path.home() / "notebook")))
    notes = sorted(home.glob("*.txt"))
    if arguments.command == "add":
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{len(notes) + 1:04}.txt").write_text(arguments.text + "\n")
    elif arguments.command == "list" and notes:
        sys.stdout.write("".join(f"{path.stem} {path.read_text()}" for path in notes))
    else:
        sys.stdout.write(files("notebook").joinpath("welcome.txt").read_text())
    return 0
