"""A command on a terminal that is not ours: bytes go through as they are, for a person whose own terminal shows them.

What a program asks its terminal is answered there; so nothing here looks at the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..agent.wire import UNLIMITED, BodyWriter, Kind, Request
from .processes import ProcessOperations, RunningCommand, command_errors


class ConsoleHandle(RunningCommand):
    """A command that a person works with."""

    async def read(self) -> bytes:
        """Return what it has written since, at least one byte; b"" when the command is over and all of it was read.

        What it leaves in the background may write on; that is not waited for.
        """
        async with self._session.losing():
            await self._channel.wait_readable()
            return await self._channel.receive() if self._channel.waiting(0) else b""

    async def write(self, keys: bytes) -> None:
        """Type them, as fast as the program reads. What is typed when it is over goes nowhere."""
        async with self._session.losing():
            await self._channel.send(keys)

    async def resize(self, rows: int, columns: int) -> None:
        """Give it another size; the programs in its foreground get SIGWINCH."""
        await self._channel.request(Request.RESIZE, BodyWriter().u16(rows).u16(columns).bytes())

    async def close(self) -> None:
        """Let what it has left in the background run on; kill it if it is not over itself."""
        if self._channel.exit_report is not None:
            self._channel.discard()
        await super().close()


class ConsoleOperations(ProcessOperations):
    """console()."""

    async def console(
        self, command: Sequence[str] | None, *, rows: int, columns: int, cwd: str, env: Mapping[str, str]
    ) -> ConsoleHandle:
        """Start a command, or the user's shell, on a terminal of that size. Raises CommandNotStarted and its kinds."""
        body = self._exec_body(command, flags=0, cwd=cwd, env=env, user=None, cap=UNLIMITED)
        body += BodyWriter().u16(rows).u16(columns).bytes()
        shown = "shell" if command is None else command
        with command_errors(shown, self.settings):
            async with self.losing():
                channel = await self._client.open(Kind.TERMINAL, body)
        return ConsoleHandle(self, shown, channel)
