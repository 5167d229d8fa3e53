"""Programs that stand between us and an engine, each at a private socket: Podman's API service, a connection of ssh.

A *companion* is shared by all processes of this user that need the same one, the workers of a run above all, and ends
with the last of them, however that ends: each holds a lock on one file, and a caretaker waits until nobody does.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import select
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import filelock

START_SECONDS = 20  # until Podman's service has looked through its storage, or ssh has logged in
CARETAKER = Path(__file__).with_name("caretaker.py")
NAME = "pytest-sandbox"
POLL = 0.02  # seconds; there is no event for a socket that is listened on, nor for a lock that comes free
ANSWER_SECONDS = 1  # of a program that listens: the kernel takes the connection for it
WORDS_BYTES = 4096
INHERITED = 10  # the least number of a descriptor that a shell between us and who inherits it leaves alone

# What a program's doings depend on besides its arguments: those who differ in it don't share one.
TELLING = ("CONTAINER", "DBUS_", "HOME", "PATH", "SSH_", "XDG_")

SOCKET = "{socket}"  # stands for the socket's path in a command

_held: dict[Path, int] = {}  # this process's descriptor of each lock


class CompanionFailed(Exception):
    """It did not come up. The argument is one line that says why, in the program's own words if it had any."""


def companion(command: Sequence[str], seconds: float = START_SECONDS) -> Path:
    """Return the socket at which a program serves, starting it if nobody has; blocks for so many seconds at most.

    command: its argv, with SOCKET in it. Raises CompanionFailed.
    """
    folder = _folder(command)
    serving, deadline = folder / "socket", time.monotonic() + seconds
    try:
        with filelock.FileLock(folder / "starting", timeout=seconds), ExitStack() as undo:
            _hold(folder / "lock", deadline)
            undo.callback(_let_go, folder / "lock")  # one that has come up half would stay
            if not _answers(serving):
                _start(folder, [part.replace(SOCKET, str(serving)) for part in command], serving, deadline)
            undo.pop_all()
    except filelock.Timeout:
        raise CompanionFailed(f"another process has been starting it for {seconds:g} s") from None
    return serving


def last_words(serving: Path) -> str:
    """Return the last line of what the program at a socket has said, or nothing."""
    with (serving.parent / "words").open("rb") as words:
        words.seek(max(0, os.fstat(words.fileno()).st_size - WORDS_BYTES))
        lines = words.read().decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def held() -> tuple[int, ...]:
    """Return the descriptors by which this process keeps its companions; whoever inherits them keeps them as well."""
    return tuple(_held.values())


def _start(folder: Path, command: Sequence[str], serving: Path, deadline: float) -> None:
    serving.unlink(missing_ok=True)
    ended, alive = os.pipe()  # the caretaker has the one end and never writes: it ends when that process does
    try:
        with (folder / "words").open("wb") as words:
            subprocess.run(
                [sys.executable, "-I", "-S", CARETAKER, folder / "lock", *command],
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                cwd="/",
                pass_fds=(alive,),
                start_new_session=True,  # Ctrl-C is not for it, nor what kills the whole group
            )
        os.close(alive)
        alive = -1
        while not _answers(serving):
            if select.select([ended], [], [], POLL)[0]:
                raise CompanionFailed(last_words(serving) or f"`{command[0]}` ended without a word")
            if time.monotonic() > deadline:
                raise CompanionFailed(last_words(serving) or f"`{command[0]}` did not come up in time")
    finally:
        for descriptor in (ended, alive):
            if descriptor >= 0:
                os.close(descriptor)


def _answers(serving: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(ANSWER_SECONDS)
        return caller.connect_ex(str(serving)) == 0


def _hold(lock: Path, deadline: float) -> None:
    """Take a share of a lock, until this process ends. While a caretaker has it, its companion is about to be gone."""
    if lock in _held:
        return
    opened = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    descriptor = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, INHERITED)
    os.close(opened)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise CompanionFailed("the one before it did not end in time") from None
            time.sleep(POLL)
        else:
            _held[lock] = descriptor
            return


def _let_go(lock: Path) -> None:
    os.close(_held.pop(lock))


def _folder(command: Sequence[str]) -> Path:
    """Make the folder of one companion, which only this user can enter.

    Its path is short, for that of a socket may have no more than 107 bytes.
    """
    telling = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(TELLING))
    digest = hashlib.sha256("\0".join([*command, *telling]).encode(errors="surrogateescape")).hexdigest()
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    above = Path(runtime, NAME) if Path(runtime).is_dir() and runtime else _temporary()
    folder = above / digest[:12]
    for each in (above, folder):
        try:
            each.mkdir(mode=0o700, exist_ok=True)
            found = each.lstat()
        except OSError as error:
            raise CompanionFailed(f"{each}, for its socket: {error.strerror}") from error
        # In /tmp anybody may have been faster.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise CompanionFailed(f"{each}, for its socket, is not this user's alone")
    return folder


def _temporary() -> Path:
    return Path(tempfile.gettempdir(), f"{NAME}-{os.geteuid()}")


def _end_in_child() -> None:
    """A forked child that kept the locks would keep the companions after its parent's end."""
    for lock in list(_held):
        _let_go(lock)


os.register_at_fork(after_in_child=_end_in_child)
