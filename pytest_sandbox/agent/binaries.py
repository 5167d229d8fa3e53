"""The agent's binaries that this installation carries; `build.py` makes them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..errors import AgentMissing

BINARIES = Path(__file__).parent / "bin"

# What engines call an architecture → what the kernel and the compiler call it.
ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class AgentBinary:
    """One static agent. build: what it says of itself in its hello. sha256: of the file, in hex."""

    path: Path
    build: str
    sha256: str


def agent_binary(architecture: str) -> AgentBinary:
    """Find the agent for an engine's architecture, as the kernel (`x86_64`) or Docker (`amd64`) names it.

    Raises AgentMissing.
    """
    path = BINARIES / f"agent-{ALIASES.get(architecture, architecture)}"
    try:
        content = path.read_bytes()
        build = (BINARIES / "BUILD").read_text().strip()
    except FileNotFoundError as error:
        built = sorted(found.name.removeprefix("agent-") for found in BINARIES.glob("agent-*"))
        raise AgentMissing(architecture, built) from error
    return AgentBinary(path, build, hashlib.sha256(content).hexdigest())
