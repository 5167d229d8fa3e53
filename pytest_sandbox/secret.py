"""Values that nobody is to see: what makes one, and how a text is rid of them. It imports nothing of ours.

Those that this process has come across are remembered, so that whatever makes a message, a report, a log line or an
event needs not know where its text came from.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

MASK = "***"
SHORTEST = 4  # characters; to mask each `1` and `no` would leave nothing to read
SHORTEST_LINE = 8  # of a value of several lines, such as a key, of which a report may show one
REMEMBERED = 1000  # values; a suite that makes one for each command is not to slow down

_known: dict[str, tuple[str, ...]] = {}  # by value, the forms in which it turns up; longest known first
_forms: list[str] = []  # all of them, longest first: one may contain another


class Secret:
    """A text that goes into the sandbox and is shown to nobody: in place of it there is `***`.

    For the variables of `environment` and `env`, and for the content of a File.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"a secret is a text, not {type(value).__name__}")
        self._value = value
        remember((value,))

    def reveal(self) -> str:
        """Return the text itself."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return Secret, (self._value,)  # to be remembered there, too


def revealed(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


def is_secret(name: str, patterns: Sequence[str]) -> bool:
    """Say whether a variable of that name is secret, case apart."""
    return any(fnmatchcase(name.upper(), pattern.upper()) for pattern in patterns)


def hidden_names(variables: Mapping[str, str | Secret], patterns: Sequence[str]) -> frozenset[str]:
    """Return the names of the variables whose values are secret, and remember these."""
    hidden = {
        name: value for name, value in variables.items() if isinstance(value, Secret) or is_secret(str(name), patterns)
    }
    remember(revealed(value) for value in hidden.values())
    return frozenset(hidden)


def remember(values: Iterable[str]) -> None:
    """Mask these values from now on, wherever they turn up."""
    global _forms
    new = [value for value in values if len(value) >= SHORTEST and value not in _known]
    if not new:
        return
    for value in new:
        lines = [line.strip() for line in value.splitlines()] if "\n" in value else []
        # The last one is in a text that has quotation marks of both kinds: then repr() escapes one of them.
        whole = (value, shlex.quote(value), repr(value)[1:-1], repr(f"{value}\"'")[1:-4])
        _known[value] = tuple({*whole, *(line for line in lines if len(line) >= SHORTEST_LINE)})
    while len(_known) > REMEMBERED:
        del _known[next(iter(_known))]
    _forms = sorted({form for forms in _known.values() for form in forms}, key=len, reverse=True)


def any_known() -> bool:
    """Say whether there is anything to mask."""
    return bool(_forms)


def masked(text: str) -> str:
    """Return the text without any secret; one that was cut off by dots is recognised by its beginning or its end."""
    for form in _forms:
        if form in text:
            text = text.replace(form, MASK)
    if not _forms or "..." not in text:
        return text
    pieces = text.split("...")
    for number in range(len(pieces) - 1):
        pieces[number] = _without_beginning(pieces[number])
        pieces[number + 1] = _without_end(pieces[number + 1])
    return "...".join(pieces)


def _without_beginning(text: str) -> str:
    """The text without the beginning of a secret as its end."""
    cut = max((_overlap(text, form) for form in _forms), default=0)
    return f"{text[:-cut]}{MASK}" if cut else text


def _without_end(text: str) -> str:
    """The text without the end of a secret as its beginning."""
    cut = max((_overlap(form, text) for form in _forms), default=0)
    return f"{MASK}{text[cut:]}" if cut else text


def _overlap(one: str, other: str) -> int:
    """How many characters the end of one shares with the beginning of the other, 0 for fewer than SHORTEST."""
    lengths = range(min(len(one), len(other)), SHORTEST - 1, -1)
    return next((length for length in lengths if one.endswith(other[:length])), 0)
