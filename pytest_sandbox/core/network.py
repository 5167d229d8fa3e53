"""A network of several sandboxes of one test, which reach each other by name and nothing else."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from ..errors import InvalidSetting, NameTaken

if TYPE_CHECKING:
    from ..engines.base import Engine
    from .sandbox import SandboxCore

# As resolvers take them (RFC 1123), and the engine's own names for the same.
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


class PrivateNetwork:
    """Made with the first sandbox that joins; neither the internet nor the engine's machine is reached through it.

    name: the engine's for it, which nobody has used before.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.name = name
        self._engine = engine
        self._members: dict[str, SandboxCore] = {}
        self._begun = False
        self._making = asyncio.Lock()  # held until the network is there: sandboxes may join at once

    async def join(self, sandbox: SandboxCore, name: str) -> None:
        """Let the others reach a sandbox by a name, and it them, until its lease or the network ends.

        Raises InvalidSetting for what is no name, NameTaken, EngineError.
        """
        if _HOST_NAME.fullmatch(name) is None:
            raise InvalidSetting("name", name, "a host name: letters, digits and hyphens, at most 63")
        if sandbox.settings.hardened:
            raise InvalidSetting("name", name, "none, for the sandbox is hardened and so in no network")
        key = name.lower()
        if key in self._members:
            raise NameTaken(name, self._members[key].name)
        self._members[key] = sandbox
        sandbox.networks.append(self)
        async with self._making:
            if not self._begun:
                self._begun = True
                await self._engine.create_network(self.name)
        await self._engine.connect(sandbox.container, self.name, name)

    async def leave(self, sandbox: SandboxCore) -> None:
        """Take a sandbox out, whatever it has come to. Idempotent."""
        self._members = {name: member for name, member in self._members.items() if member is not sandbox}
        await self._engine.disconnect(sandbox.container, self.name)

    async def close(self) -> None:
        """Remove the network; sandboxes that are still in it lose it. Idempotent."""
        if self._begun:
            await self._engine.remove_network(self.name)
