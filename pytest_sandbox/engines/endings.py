"""How an heir (heir.py) ends what was left to it; imports little, for a client of the engine takes a second to import.

A subject is a kind, a name, and what it may be kept by: `container x 0123…`, `network y `.
"""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Sequence

from .kept import KeptNotes

LATE_SECONDS = 5.0  # after a process's end, in which a container may come to be that it had asked for
POLL = 0.1  # seconds; an engine has no event for "that request has gone astray"
ANSWER_SECONDS = 30.0
PATHS = {"container": "containers/{}?force=1&v=1", "network": "networks/{}"}


def end_all(end: Callable[[str, str], bool], subjects: Sequence[str]) -> None:
    """End each, in whatever order that is possible in, but for what is noted to be kept.

    end: of a kind and a name; says whether it has: a thing may be yet to come. An engine that has no answer for one is
    not asked for the others, each of which would take as long: the next run removes what is left.
    """
    deadline = time.monotonic() + LATE_SECONDS
    named = [subject.split(" ") for subject in subjects]
    left = [(kind, name) for kind, name, identity in named if KeptNotes().find(identity) is None]
    while left and time.monotonic() < deadline:
        for each in list(left):
            began = time.monotonic()
            if end(*each):
                left.remove(each)
            elif time.monotonic() - began >= ANSWER_SECONDS:
                return
        time.sleep(POLL)


def end_by_socket(path: str, version: str, kind: str, name: str) -> bool:
    """End it through the engine's Unix socket. version: of the API."""
    connection = _UnixConnection(path)
    try:
        connection.request("DELETE", f"/v{version}/{PATHS[kind].format(name)}")
        return connection.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
