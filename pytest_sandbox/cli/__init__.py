"""The command `pytest-sandbox`: looks after sandboxes outside of pytest runs. It does not import pytest."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from ..engines.discovery import AUTO, find_engine
from ..errors import SandboxError
from .choice import NoSuchSandbox

if TYPE_CHECKING:
    from ..engines.base import Engine

Command = Callable[["Engine", argparse.Namespace], Coroutine[None, None, int]]

STORE_HELP = "folder of the kept baselines; by default the one in the user's cache"
INTERRUPTED, TERMINATED = 130, 143  # as a shell has them for SIGINT and SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 1 for what went wrong, 2 for a command that can't be meant."""
    chosen = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], Coroutine[None, None, int]] = chosen.run
    try:
        return asyncio.run(run(chosen))
    except (SandboxError, NoSuchSandbox) as error:
        print(f"pytest-sandbox: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except asyncio.CancelledError:  # by the shell's own handler
        return TERMINATED
    except BrokenPipeError:
        sys.stderr.close()  # `pytest-sandbox ls | head`: nothing is to be said of what nobody reads
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pytest-sandbox", description="Look after the sandboxes of pytest runs.")
    parser.add_argument(
        "--engine",
        default=os.environ.get("SANDBOX_ENGINE") or AUTO,
        help="`docker`, `podman` or an endpoint; by default what --sandbox-engine would find",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="check all that tests need on this machine, and say how to mend it")
    doctor.add_argument("--image", help="which image to check; by default SANDBOX_IMAGE, or the plugin's own default")
    doctor.add_argument("--store", help=STORE_HELP)
    doctor.add_argument("--json", action="store_true", help="as a JSON array")
    doctor.set_defaults(run=_examine)

    ls = commands.add_parser("ls", help="list the sandboxes on the engine: kept ones, those of runs, and left ones")
    ls.add_argument("--json", action="store_true", help="as a JSON array")
    ls.set_defaults(run=_with_engine("listing", "list_sandboxes"))

    shell = commands.add_parser(
        "shell",
        help="open a terminal in a kept sandbox",
        description="Open a shell, or run a command, on a terminal in a kept sandbox. It stays when you leave.",
    )
    shell.add_argument("sandbox", metavar="ID", help="name or id of a kept sandbox, or how one of them begins")
    shell.add_argument("command", nargs=argparse.REMAINDER, help="by default the shell of its user")
    shell.set_defaults(run=_with_engine("shell", "open_shell"))

    rm = commands.add_parser("rm", help="remove kept sandboxes")
    rm.add_argument("sandboxes", metavar="ID", nargs="*", help="names or ids, or how they begin")
    rm.add_argument("--all", action="store_true", help="all that runs of this user have kept")
    rm.add_argument("--force", action="store_true", help="also those that are not kept, or are in use")
    rm.set_defaults(run=_with_engine("removing", "remove_sandboxes"))

    prune = commands.add_parser(
        "prune",
        help="remove what nobody needs",
        description="Remove what killed runs have left, images and archives that were not used for long, and old "
        "volumes of other versions' agents. Kept sandboxes stay.",
    )
    prune.add_argument("--days", type=float, default=14.0, help="how long unused, where that matters (14)")
    prune.add_argument("--store", help=STORE_HELP)
    prune.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    prune.set_defaults(run=_with_engine("pruning", "prune"))
    return parser


async def _examine(arguments: argparse.Namespace) -> int:
    from .doctor import examine

    return await examine(arguments)


def _with_engine(module: str, function: str) -> Callable[[argparse.Namespace], Coroutine[None, None, int]]:
    """Let a command have the engine; what it needs is imported when it is run."""

    async def run(arguments: argparse.Namespace) -> int:
        command: Command = getattr(import_module(f".{module}", __name__), function)
        engine = await find_engine(arguments.engine)
        try:
            return await command(engine, arguments)
        finally:
            await engine.close()

    return run
