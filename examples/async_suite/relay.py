"""A chat room: a guest gives a name, and what lines follow all guests get. Usage: relay.py PORT"""

# ruff: noqa: T201  # printing is what it is for

from __future__ import annotations

import asyncio
import sys

guests: dict[str, asyncio.StreamWriter] = {}


def tell(line: str) -> None:
    print(line, flush=True)
    for writer in guests.values():
        writer.write(f"{line}\n".encode())


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    name = (await reader.readline()).decode().strip()
    if not name or name in guests:
        writer.write(b"! another name, please\n")
        writer.close()
        return
    guests[name] = writer
    tell(f"* {name} is here")
    try:
        while line := await reader.readline():
            tell(f"{name}: {line.decode().strip()}")
    finally:
        del guests[name]
        writer.close()
        tell(f"* {name} has left")


async def main() -> None:
    async with await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1])) as server:
        print("open", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
