"""The bars of terminals: a keystroke's echo, the first byte, sixty that idle, a hundred megabytes, the last byte."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from pytest_sandbox import EOF, Sandbox, SandboxSettings, Terminal

from .measure import Figure, median_ms, seconds
from .peer import Peer

MANY = 60
IDLE_SECONDS = 5.0
FLOOD = 100_000_000
LAST_BYTES = 3_000_000
RUNS = 100


def figures(image: str) -> Iterator[Figure]:
    """All of them, in the order of the bars."""
    with Sandbox.create(SandboxSettings(image=image)) as sandbox, Peer(image) as peer:
        yield _echo(sandbox, peer)
        yield _first_byte(sandbox, peer)
        yield from _idle(sandbox)
        yield Figure(f"bytes lost in {RUNS} runs of 3 MB and exit", "", _lost(sandbox), at_most=0)
    yield from _flood(image)


def _echo(sandbox: Sandbox, peer: Peer) -> Figure:
    with sandbox.terminal(["cat"]) as terminal, peer.terminal("cat") as connection:

        def ours() -> None:
            terminal.send("x")
            terminal.expect("x")

        def theirs() -> None:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"

        return Figure("echo of a keystroke, median", "ms", median_ms(ours, 300), median_ms(theirs, 300), at_most=5)


def _first_byte(sandbox: Sandbox, peer: Peer) -> Figure:
    def ours() -> None:
        with sandbox.terminal(["echo", "here"]) as terminal:
            terminal.expect("here")

    def theirs() -> None:
        with peer.terminal("echo", "here") as connection:
            assert connection.recv(1) == b"h"

    return Figure("start to first byte, median", "ms", median_ms(ours, 100), median_ms(theirs, 20), at_most=15)


def _idle(sandbox: Sandbox) -> Iterator[Figure]:
    terminals = [sandbox.terminal(["cat"]) for _ in range(MANY)]
    for terminal in terminals:
        terminal.send("x")
        terminal.expect("x")
    before, inside = time.process_time(), _cpu_seconds(sandbox)
    time.sleep(IDLE_SECONDS)
    host = time.process_time() - before
    # Taking the second figure costs the sandbox more than idling does; so what taking it once more costs is left out.
    used = _cpu_seconds(sandbox)
    used -= inside + (_cpu_seconds(sandbox) - used)
    yield Figure(f"CPU of {MANY} idle terminals, host", "%", host / IDLE_SECONDS * 100, at_most=1)
    yield Figure(f"CPU of {MANY} idle terminals, sandbox", "%", max(used, 0) / IDLE_SECONDS * 100, at_most=1)
    yield Figure(f"end {MANY} terminals together", "s", seconds(sandbox.close_terminals), at_most=1)


def _cpu_seconds(sandbox: Sandbox) -> float:
    """What all processes in the sandbox have used, in clock ticks of 10 ms (proc(5))."""
    stats = sandbox.exec("cat /proc/[0-9]*/stat 2>/dev/null").stdout.text.splitlines()
    return sum(int(ticks) for stat in stats for ticks in stat.rpartition(")")[2].split()[11:13]) / 100


def _lost(sandbox: Sandbox) -> int:
    def lost(terminal: Terminal) -> int:
        with terminal:
            terminal.expect(EOF)
            return LAST_BYTES - terminal.output.total_bytes

    return sum(lost(sandbox.terminal(["head", "-c", str(LAST_BYTES), "/dev/zero"])) for _ in range(RUNS))


def _flood(image: str) -> Iterator[Figure]:
    """A fresh process's peak of memory, and its time, while a program writes without pause (proc(5))."""
    script = f"""
import time
from pathlib import Path
from pytest_sandbox import EOF, Sandbox, SandboxSettings

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

with Sandbox.create(SandboxSettings(image={image!r})) as sandbox:
    with sandbox.terminal("echo ready; read go; yes {"x" * 79} | head -c {FLOOD}") as terminal:
        terminal.expect("ready")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, begin = memory("VmRSS"), time.perf_counter()
        terminal.sendline()
        terminal.expect(EOF, timeout=120)
        took = time.perf_counter() - begin
        written = {FLOOD} + {FLOOD} // 80  # a carriage return before each newline
        assert terminal.output.total_bytes == len("ready") + 2 + 2 + written, terminal.output.total_bytes
    print((memory("VmHWM") - before) / 2**20, took)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    growth, took = map(float, done.stdout.split())
    yield Figure("host memory while 100 MB come through a terminal", "MiB", growth, at_most=16)
    yield Figure("100 MB through a terminal", "s", took)
