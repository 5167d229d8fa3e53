"""What can be told of a build from the text of its Dockerfile."""

from __future__ import annotations

import re
from collections.abc import Mapping

_FROM = re.compile(r"FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", re.IGNORECASE)
_ARG = re.compile(r"ARG\s+(\w+)(?:=(\S*))?", re.IGNORECASE)
_TAKEN = re.compile(r"(?:COPY\s+(?:--\S+\s+)*?--from=|RUN\s+.*?--mount=\S*?\bfrom=)([^\s,]+)", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::-([^}]*))?\})")
_HERE_DOCUMENT = re.compile(r"^\s*(?:RUN|COPY|ADD)\s.*<<-?[\"']?\w", re.IGNORECASE | re.MULTILINE)
_DIRECTIVE = re.compile(r"#\s*(\w+)\s*=\s*(\S+)\s*")


def base_images(dockerfile: str, args: Mapping[str, str], target: str = "") -> tuple[str, ...]:
    """Return the images that a build begins its stages with or takes files from, as far as the text tells.

    args: of the build; they win over the defaults in the text. target: the stage that it ends with, if not the last.
    """
    values: dict[str, str] = {}
    stages: list[str] = []
    bases: dict[str, None] = {}  # in order, each once

    def note(name: str) -> None:
        base = _VARIABLE.sub(lambda found: values.get(found[1] or found[2]) or found[3] or "", name)
        if base and base.lower() not in ("scratch", *stages) and not (base.isdecimal() and int(base) < len(stages)):
            bases[base] = None

    for line in dockerfile.replace("\\\n", " ").splitlines():
        if (argument := _ARG.match(line.strip())) and not stages:
            values[argument[1]] = args.get(argument[1], (argument[2] or "").strip("\"'"))
        elif beginning := _FROM.match(line.strip()):
            if target and stages and target.lower() in (stages[-1], str(len(stages) - 1)):
                break
            note(beginning[1])
            stages.append((beginning[2] or str(len(stages))).lower())
        elif taken := _TAKEN.match(line.strip()):
            note(taken[1])
    return tuple(bases)


def syntax_image(dockerfile: str) -> str:
    """Return the image that is to read the text instead of the BuildKit that the engine has; empty if none is named.

    It stands in a comment `# syntax=…` before all but other comments of the kind.
    """
    for line in dockerfile.splitlines():
        directive = _DIRECTIVE.fullmatch(line.strip())
        if directive is None:
            return ""
        if directive[1].lower() == "syntax":
            return directive[2]
    return ""


def advised(reason: str, dockerfile: str) -> str:
    """Return the reason why a builder did not take a text, with what to do where the reason hides it."""
    if "unknown instruction" in reason and _HERE_DOCUMENT.search(dockerfile):
        return (
            f"{reason} (here-documents take BuildKit, and an engine of Docker 23 or later, or else the first line "
            "`# syntax=docker/dockerfile:1`)"
        )
    return reason
