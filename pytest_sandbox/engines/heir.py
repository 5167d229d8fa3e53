"""What ends, when this process was killed, things that do not end by themselves.

A container ends with the stream to its agent. One that was created and not yet started has no agent, one whose agent a
test has stopped does not notice, and a network has no stream at all; nor has a folder of temporary files. So each is
left to the *heir* before it is made, and taken back when it is gone. The heir is a small process that waits for the end
of its input, which the kernel brings when we end, however we end; with nothing left to it, it ends at once.
"""

from __future__ import annotations

import logging
import os
import pickle
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .companions import held
from .heir_main import PATH_VARIABLE

logger = logging.getLogger(__name__)

SCRIPT = Path(__file__).with_name("heir_main.py")
SHELL = "/bin/sh"
BEGIN = 'exec 3<&0; "$@" <&3 3<&- &'  # what a shell runs beside it has /dev/null for its input, if nothing else is said
BEGIN_SECONDS = 10.0  # for a shell to start it; milliseconds
STILL_WRITTEN_SECONDS = 5.0
HEAR_SECONDS = 1.0  # for an heir that was stopped; it takes 64 KiB before it has to read


class Heir:
    """A process's own, begun with the first will. Callable from any thread; without it a later run's sweep has to do.

    end: a pickled function that takes a list of subjects, and tries for some seconds: what we were making may come to
    be after our end. It runs in the heir, with this interpreter's modules.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # words must not mix
        self._pipe: int | None = None
        self._deaf = not sys.executable

    def leave(self, end: bytes, subject: str) -> None:
        """Let a subject be ended after us."""
        self._say("+", end, subject)

    def take_back(self, end: bytes, subject: str) -> None:
        """It is gone, or no longer ours."""
        self._say("-", end, subject)

    def _say(self, sign: str, end: bytes, subject: str) -> None:
        with self._lock:
            if self._deaf:
                return
            try:
                if self._pipe is None:
                    self._pipe = _begun()
                _write(self._pipe, f"{sign}{end.hex()} {subject}\n".encode())
            except (OSError, subprocess.SubprocessError) as error:
                # The pipe stays open: its end would be ours to the heir, if it still listens.
                self._deaf = True
                logger.debug("heir.lost a later run removes what a killed one leaves: %s", error)

    def _end_in_child(self) -> None:
        """A forked child would keep the heir from hearing of its parent's end; it has an heir of its own."""
        if self._pipe is not None:
            os.close(self._pipe)
        Heir.__init__(self)  # with a lock that no thread of the parent's holds


def _begun() -> int:
    """Start an heir, and return the end of the pipe to it that is ours."""
    heirs, ours = os.pipe()
    try:
        # By way of a shell that ends at once: nobody who waits for all children of this process, or kills them, meets
        # it. In a session of its own, which Ctrl-C and the end of a terminal do not reach.
        subprocess.run(
            [SHELL, "-c", BEGIN, "sh", sys.executable, "-I", "-S", SCRIPT],
            stdin=heirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            pass_fds=held(),  # it needs the connection to the engine after we are gone
            env={**os.environ, PATH_VARIABLE: os.pathsep.join(map(os.path.abspath, sys.path))},
            start_new_session=True,
            timeout=BEGIN_SECONDS,
            check=True,
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(heirs)
    os.set_blocking(ours, False)
    return ours


def _write(pipe: int, line: bytes) -> None:
    deadline = time.monotonic() + HEAR_SECONDS
    while line:
        if not select.select([], [pipe], [], max(0, deadline - time.monotonic()))[1]:
            raise TimeoutError(f"no room in its pipe for {HEAR_SECONDS:g} s")
        try:
            line = line[os.write(pipe, line) :]
        except BlockingIOError:
            pass  # less room than the kernel needs to take a line whole


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder for this user only, and remove it, or have it removed after us."""
    folder = tempfile.TemporaryDirectory(prefix="pytest-sandbox-")
    end = pickle.dumps(_remove_folders)
    heir.leave(end, folder.name)
    try:
        yield Path(folder.name)
    finally:
        folder.cleanup()
        heir.take_back(end, folder.name)


def _remove_folders(folders: Sequence[str]) -> None:
    """Remove them, again while something that outlives us, such as git, still writes there."""
    deadline = time.monotonic() + STILL_WRITTEN_SECONDS
    while any(map(os.path.exists, folders)) and time.monotonic() < deadline:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


heir = Heir()

os.register_at_fork(after_in_child=heir._end_in_child)
