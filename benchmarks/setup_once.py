"""What an expensive set-up costs a suite on four workers: each time, the first time, and from then on.

The suite is examples/shared_setup.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .measure import Figure, seconds

EXAMPLE = Path(__file__).parents[1] / "examples" / "shared_setup"


def figures(_: str) -> Iterator[Figure]:
    """Whole runs of pytest, its start and the containers included, in the image of the examples: they need Python."""
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(shutil.copytree(EXAMPLE, Path(folder) / "suite"))
        store = Path(folder) / "store"
        for what, option in (
            ("nothing kept, so each worker makes it", "none"),
            ("first run: one worker makes it for all", str(store)),
            ("second run: it is there", str(store)),
        ):
            took = seconds(lambda option=option: _run(suite, option))  # type: ignore[misc]
            yield Figure(f"an expensive set-up, -n 4; {what}", "s", took)


def _run(suite: Path, store: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n4", "-p", "no:cacheprovider", f"--sandbox-store={store}"]
    subprocess.run([*command, suite.name], cwd=suite.parent, check=True, stdout=subprocess.DEVNULL)
