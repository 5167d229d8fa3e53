"""Takes a job from the list `jobs` of a Redis, and puts what comes of it into `done`. Usage: worker.py HOST"""

# ruff: noqa: T201  # printing is what it is for

from __future__ import annotations

import socket
import sys
from typing import BinaryIO


def call(redis: BinaryIO, *words: str) -> str | None:
    """Send a command and return the answer: https://redis.io/docs/latest/develop/reference/protocol-spec/."""
    parts = [word.encode() for word in words]
    redis.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
    redis.flush()
    kind, rest = redis.read(1), redis.readline().strip()
    if kind != b"$":
        return rest.decode()
    length = int(rest)
    return None if length < 0 else redis.read(length + 2)[:-2].decode()


def main() -> int:
    try:
        with socket.create_connection((sys.argv[1], 6379), timeout=10) as connection:
            redis = connection.makefile("rwb")
            job = call(redis, "LMOVE", "jobs", "under-way", "LEFT", "RIGHT")
            if job is None:
                print("nothing to do")
                return 0
            call(redis, "RPUSH", "done", job.upper())
            call(redis, "LREM", "under-way", "1", job)
            print(f"did {job}")
    except OSError as error:
        print(f"no Redis at {sys.argv[1]}: {error}", file=sys.stderr)
        return 75  # of sysexits.h: try again later
    return 0


if __name__ == "__main__":
    sys.exit(main())
