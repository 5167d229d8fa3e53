"""Build the agent from `src/`: one static binary per architecture into `bin/`, and a sanitized one for the host.

Stand-alone: only the standard library, and `ziglang` for its C compiler when something has to be compiled. The build
hook (`hatch_build.py`), `make agent` and `python -m pytest_sandbox.agent.build` all come through here.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent

# Zig's name of the architecture is the kernel's, and so the engine's: `uname -m`.
ARCHITECTURES = ("x86_64", "aarch64")

LANGUAGE = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror")
STATIC = ("-static", "-O2", "-s")
# Any report ends the process with a status of its own, so that a test sees it.
SANITIZED = ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class BuildFailed(Exception):
    """The compiler is missing or refused the sources; the message is for a person."""


def build_id(sources: Path) -> str:
    """Name what `sources` would be built into: 16 hex digits over every source file and the way it is compiled."""
    digest = hashlib.sha256(repr((ARCHITECTURES, LANGUAGE, STATIC)).encode())
    for path in sorted([*sources.glob("*.c"), *sources.glob("*.h")]):
        content = path.read_bytes()
        digest.update(f"\0{path.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def build(sources: Path = HERE / "src", binaries: Path = HERE / "bin") -> bool:
    """Bring `binaries` up to date with `sources`; return whether there was anything to do.

    `BUILD` is written last, so an interrupted build is done again. Raises BuildFailed.
    """
    wanted = build_id(sources)
    if is_current(binaries, wanted):
        return False
    binaries.mkdir(parents=True, exist_ok=True)
    for architecture in ARCHITECTURES:
        compiler = [sys.executable, "-m", "ziglang", "cc", "-target", f"{architecture}-linux-musl"]
        _compile(compiler, STATIC, sources, wanted, binaries / f"agent-{architecture}")
    (binaries / "BUILD").write_text(wanted + "\n")
    return True


def build_sanitized(sources: Path = HERE / "src", target: Path = CHECKOUT / "build" / "agent-sanitized") -> bool:
    """Build the agent for this machine with AddressSanitizer and UBSan; return whether there was anything to do.

    The compiler is $CC, or the first of gcc and clang. Raises BuildFailed.
    """
    compiler = shlex.split(os.environ.get("CC", "")) or [name for name in ("gcc", "clang") if shutil.which(name)][:1]
    if not compiler:
        raise BuildFailed("no C compiler for the sanitized agent: install gcc or clang, or set CC")
    wanted = build_id(sources)
    recipe = hashlib.sha256(repr((wanted, compiler, SANITIZED)).encode()).hexdigest()[:16]
    stamp = target.with_name(target.name + ".build")
    if target.exists() and stamp.exists() and stamp.read_text().strip() == recipe:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    _compile(compiler, SANITIZED, sources, wanted, target)
    stamp.write_text(recipe + "\n")
    return True


def is_current(binaries: Path, wanted: str) -> bool:
    """Say whether `binaries` holds every architecture, built from what `wanted` names."""
    stamp = binaries / "BUILD"
    complete = all((binaries / f"agent-{architecture}").exists() for architecture in ARCHITECTURES)
    return complete and stamp.exists() and stamp.read_text().strip() == wanted


def _compile(compiler: Sequence[str], mode: Sequence[str], sources: Path, build: str, target: Path) -> None:
    units = sorted(str(path) for path in sources.glob("*.c"))
    if not units:
        raise BuildFailed(f"no C sources in {sources}")
    # Whoever runs the old binary keeps it, and two builds at once both end with a whole one.
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    command = [*compiler, *mode, *LANGUAGE, f'-DAGENT_BUILD="{build}"', *units, "-o", str(unfinished)]
    try:
        subprocess.run(command, check=True)
        unfinished.replace(target)
    except subprocess.CalledProcessError as error:
        raise BuildFailed(
            f"{target.name} was not built, exit code {error.returncode}: {shlex.join(command)}"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="pytest_sandbox.agent.build", description="Build the agent where it is out of date."
    )
    parser.add_argument("--sanitize", action="store_true", help="the host build with sanitizers, build/agent-sanitized")
    options = parser.parse_args(arguments)
    try:
        built = build_sanitized() if options.sanitize else build()
    except BuildFailed as error:
        print(f"agent: {error}", file=sys.stderr)
        return 1
    print(f"agent: {'built' if built else 'is current'}" + (" (sanitized)" if options.sanitize else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
