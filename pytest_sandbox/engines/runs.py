"""Who made a container, and whether that process still lives.

A *run* is one process that starts containers; it holds a lock on a file of its own until it ends, however it ends. A
*host* is everyone who shares the directory of those files. Containers carry both as labels, so that a later run can
remove what a killed one left, and only that.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..folders import PRIVATE_FILE, state_folder, writing
from .locks import is_held


@dataclass(frozen=True, slots=True)
class Run:
    """id: 8 hex digits, of this process. host: 16 hex digits. descriptor: holds the lock.

    folder: where the host's locks are. Kept with the host, for a process may change its environment: in another folder
    every other run of this host would be missing, and so look dead.
    """

    id: str
    host: str
    descriptor: int
    folder: Path

    def is_dead(self, run: str) -> bool:
        """Say whether another run of this host has ended: nobody holds its lock any more."""
        if run == self.id:
            return False
        try:
            descriptor = os.open(_lock_path(self.folder, run), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        return not is_held(descriptor)

    def dead(self) -> list[str]:
        """Return the runs of this host that have ended without being forgotten."""
        return [path.stem for path in self.folder.glob("*.lock") if self.is_dead(path.stem)]

    def forget(self, run: str) -> None:
        """Drop the lock file of a dead run whose containers are gone."""
        _lock_path(self.folder, run).unlink(missing_ok=True)

    def maker_of(self, run: str) -> str:
        """Return what a living run of this host says of itself, `process 12 in /project`, or nothing."""
        try:
            return _lock_path(self.folder, run).read_text(errors="replace")
        except FileNotFoundError:
            return ""


_current: Run | None = None


def current_run() -> Run:
    """Return this process's run, which begins with the first call. Raises HostFolderUnusable."""
    global _current
    if _current is None:
        folder, maker = state_folder("runs"), f"process {os.getpid()} in {Path.cwd()}"
        with writing(folder):
            _current = _begun(folder, maker)
    return _current


def _begun(folder: Path, maker: str) -> Run:
    host = _host(folder)
    run = secrets.token_hex(4)
    # Locked before it has its name: a file that can be seen and is not locked is a dead run's.
    unfinished = folder / f"{run}.new"
    with ExitStack() as undo:
        descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        undo.callback(os.close, descriptor)
        undo.callback(unfinished.unlink)
        os.write(descriptor, maker.encode(errors="replace"))
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        unfinished.rename(_lock_path(folder, run))
        undo.pop_all()
    return Run(run, host, descriptor, folder)


def _host(folder: Path) -> str:
    """Name this host: a random id kept beside the locks, and the host name.

    Not the machine id: containers of one CI image share that, and the engine's socket, but not the lock files; each
    would take the other's runs for dead. A process with another HOME doesn't see our locks either: it is another host.
    """
    path = folder / "identity"
    try:
        identity = path.read_text()
    except FileNotFoundError:
        unfinished = path.with_name(f"identity.{secrets.token_hex(4)}")
        unfinished.touch(PRIVATE_FILE)
        unfinished.write_text(secrets.token_hex(16))
        try:
            os.link(unfinished, path)  # whole or not at all, and the first one wins
        except FileExistsError:
            pass  # another process was the first
        unfinished.unlink()
        identity = path.read_text()
    return hashlib.sha256(f"{identity}\0{socket.gethostname()}".encode()).hexdigest()[:16]


def _lock_path(folder: Path, run: str) -> Path:
    # The name comes from a label that anybody may have written.
    return folder / f"{Path(run).name}.lock"


def _end_in_child() -> None:
    """A forked child is a run of its own; with our descriptor it would also keep the parent's lock."""
    global _current
    if _current is not None:
        os.close(_current.descriptor)
        _current = None


os.register_at_fork(after_in_child=_end_in_child)
