"""What is needed to go on with a session in another process: as a value, and as JSON. No sandbox here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import Enum
from pathlib import PurePath
from typing import Any

from ..errors import InvalidState
from ..models import SandboxSettings
from ..mounts import Mount, parsed
from ..secret import Secret, hidden_names

FORMAT = "pytest-sandbox session"
VERSION = 1
DEFAULTS = SandboxSettings()


@dataclass(frozen=True)
class SessionState:
    """A session as it was when state() was called.

    engine: id of the engine. container, name: of its container. identity: which that carries, empty if it is not kept.
    settings: what differs from the defaults, without the values of secret variables. hidden: names of these.
    snapshot: key in the store, empty without one.
    """

    engine: str
    container: str
    name: str
    identity: str
    image_digest: str
    settings: Mapping[str, Any]
    hidden: tuple[str, ...]
    snapshot: str

    def to_json(self) -> str:
        """Return the state for a file. Nobody is to edit it: from_json() would notice."""
        content = asdict(self)
        document = {"format": FORMAT, "version": VERSION, "session": content, "sha256": _digest(content)}
        return json.dumps(document, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> SessionState:
        """Return what to_json() wrote. Raises InvalidState."""
        try:
            document = json.loads(text)
        except ValueError as error:
            raise InvalidState(f"no JSON ({error})") from None
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise InvalidState(f"no {FORMAT!r}")
        if document.get("version") != VERSION:
            raise InvalidState(f"its version is {document.get('version')!r}, and this package reads {VERSION}")
        content = document.get("session")
        if not isinstance(content, dict) or document.get("sha256") != _digest(content):
            raise InvalidState("it was edited or damaged, as its checksum says")
        names = {field.name for field in fields(cls)}
        if set(content) != names:  # somebody has made the checksum anew
            raise InvalidState(f"its fields are not {', '.join(sorted(names))}")
        state = cls(**{**content, "hidden": tuple(content["hidden"])})
        state.restored_settings()
        return state

    def restored_settings(self, environment: Mapping[str, str | Secret] | None = None) -> SandboxSettings:
        """Return the settings, with more or other variables. Raises InvalidState."""
        known = {field.name for field in fields(SandboxSettings)}
        if unknown := set(self.settings) - known:
            raise InvalidState(f"it has settings that this package does not know: {', '.join(sorted(unknown))}")
        try:
            values = {name: _read(name, value) for name, value in self.settings.items()}
        except (TypeError, ValueError) as error:
            raise InvalidState(f"a setting can't be read ({error})") from None
        settings = replace(DEFAULTS, **values)
        return replace(settings, environment={**settings.environment, **(environment or {})})


def written_settings(settings: SandboxSettings) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the settings as JSON values, and the names of the variables whose values are left out."""
    hidden = tuple(sorted(hidden_names(settings.environment, settings.secrets)))
    shown = {name: value for name, value in settings.environment.items() if name not in hidden}
    settings = replace(settings, environment=shown)
    changed = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {name: _written(value) for name, value in changed.items() if value != getattr(DEFAULTS, name)}, hidden


def _written(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, PurePath | Mount):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _written(each) for key, each in value.items()}
    return [_written(each) for each in value] if isinstance(value, list | tuple) else value


def _read(name: str, value: Any) -> Any:
    """The value as the field of that name has it, of which mostly the default tells the type."""
    if name == "mounts":
        return tuple(parsed(each) for each in value)
    default = getattr(DEFAULTS, name)
    if isinstance(default, Enum | PurePath | tuple):
        return type(default)(value)
    if isinstance(default, Mapping) and not isinstance(value, Mapping):
        raise TypeError("no mapping")
    return value


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
