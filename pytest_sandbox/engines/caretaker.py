"""Run a program for as long as anybody holds a lock: `python caretaker.py LOCK PROGRAM ARGUMENT…`; companions.py does.

A process of its own, for those who hold the lock may be killed in any way, and the kernel then frees it. Standard
library only, and run as a file: it starts in the time that Python takes, and imports nothing of ours.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading

GRACE = 3.0  # seconds between SIGTERM and SIGKILL


def main() -> int:
    lock, *command = sys.argv[1:]
    if os.fork():
        os._exit(0)  # init's child, not theirs who started it: they would have to wait for it
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as program:
        threading.Thread(target=_end_when_free, args=(lock, program), daemon=True).start()
        return program.wait()  # it may also end by itself, and then there is nothing to take care of


def _end_when_free(lock: str, program: subprocess.Popen[bytes]) -> None:
    # Held until this process is gone, and with it the program: whoever comes meanwhile waits, and starts another one.
    fcntl.flock(os.open(lock, os.O_RDWR | os.O_CLOEXEC), fcntl.LOCK_EX)
    program.terminate()
    try:
        program.wait(GRACE)
    except subprocess.TimeoutExpired:
        program.kill()


if __name__ == "__main__":
    sys.exit(main())
