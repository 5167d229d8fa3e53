"""A session that goes on from one process to the next: `python session.py begin`, `step` as often as you like, `end`.

Between two calls no process of ours runs; the sandbox does, with the server in it. If its container is gone meanwhile
(`docker rm -f`, a reboot), `step` goes on from the files as they were at the last call.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pytest_sandbox import Sandbox, SandboxSettings, SessionState

STATE = Path("session.json")
COUNTER = "while read line <ask; do wc -l <log >answer; done"


def begin() -> None:
    sandbox = Sandbox.create(SandboxSettings(image=os.environ.get("SANDBOX_IMAGE", "python:3.13-slim")), keep=True)
    sandbox.exec("touch log && mkfifo ask answer", check=True)
    sandbox.start(COUNTER)
    leave(sandbox)


def step() -> None:
    state = SessionState.from_json(STATE.read_text())
    sandbox = Sandbox.resume(state)
    if sandbox.container.id != state.container:  # FIFOs and processes are in no snapshot
        sys.stdout.write("its container is gone: going on from the snapshot\n")
        sandbox.exec("mkfifo ask answer", check=True)
        sandbox.start(COUNTER)
    lines = sandbox.exec("echo step >>log && echo >ask && cat answer", check=True, timeout=10).stdout.text.strip()
    sys.stdout.write(f"{lines} steps in {sandbox.name}\n")
    leave(sandbox)


def end() -> None:
    Sandbox.resume(SessionState.from_json(STATE.read_text())).close()
    STATE.unlink()


def leave(sandbox: Sandbox) -> None:
    """Write down where the session is, and let it go on without us."""
    STATE.write_text(sandbox.state().to_json())
    sandbox.detach()


if __name__ == "__main__":
    {"begin": begin, "step": step, "end": end}[sys.argv[1]]()
