"""Where settings come from: two tables, from which options, ini keys, variables, markers and docs are made.

A new setting of sandboxes is one row in TABLE (and its field in SandboxSettings), one of the run a row in RUN_TABLE
(and in RunSettings). `python -m pytest_sandbox.settings` prints docs/settings.md.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pytest

from .configuration import (
    UNITS,
    Isolation,
    KeepPolicy,
    MissingPolicy,
    PullPolicy,
    RecordPolicy,
    ReportPolicy,
    RunSettings,
    SandboxSettings,
    read_size,
)
from .errors import InvalidMount, InvalidSetting
from .secret import MASK, Secret, revealed

if TYPE_CHECKING:
    from .image import Image
    from .mounts import Mount

SETTINGS = pytest.StashKey[SandboxSettings]()  # what configured() returned for the run
RUN = pytest.StashKey[RunSettings]()  # what run_configured() returned
DEFAULTS = SandboxSettings()
RUN_DEFAULTS = RunSettings()
SMALLEST_MEMORY = 6 * 1024**2  # engines refuse less


# --- how values are written -----------------------------------------------------------------------------------------


class Syntax(NamedTuple):
    """How the values of a setting are written.

    parse: from text, or from the Python value of a marker; raises ValueError or TypeError for anything else.
    expected: completes the sentence "expected …". write: the way back, for help and docs.
    lines: several values, one a line: ini key and marker only, as a shell has no good form for them.
    flag: yes or no; the option stands alone. shown: what an error may show of a value.
    """

    parse: Callable[[object], object]
    expected: str
    write: Callable[[Any], str] = str
    lines: bool = False
    flag: bool = False
    shown: Callable[[object], object] = lambda value: value


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise TypeError
    return value.strip()


def _name(value: object) -> str:
    name = _text(value)
    if not name or re.search(r"\s", name):
        raise ValueError
    return name


def _image(value: object) -> str | Image:
    if isinstance(value, str) and value.strip().startswith((".", "/", "~")):  # no image's name begins so
        from .image import Image

        return Image(Path(_text(value)).expanduser())
    return _name(value) if isinstance(value, str) else _local_image(value)


def _local_image(value: object) -> Image:
    from .image import Image

    if not isinstance(value, Image):
        raise TypeError
    return value


def _user(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    return _text(value)


def _engine(value: object) -> str:
    name = _name(value)
    if name not in ("auto", "docker", "podman") and not re.match(r"(unix|tcp|ssh)://.", name):
        raise ValueError
    return name


def _network(value: object) -> str:
    return "" if value in ("none", "", None) else _name(value)


def _runtime(value: object) -> str:
    return "" if value == "" else _name(value)


def _absolute_path(value: object) -> PurePosixPath:
    path = PurePosixPath(_text(str(value)) if isinstance(value, PurePosixPath) else _text(value))
    # The root itself can't be a volume, and a `..` would make two names for one place.
    if not path.is_absolute() or path == PurePosixPath("/") or ".." in path.parts:
        raise ValueError
    return path


def _directory(value: object) -> str:
    path = _text(value)
    if not path:
        raise ValueError
    return path


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    number = float(value)
    if not math.isfinite(number) or number <= 0:
        raise ValueError
    return number


def _count(value: object) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError
    return int(number)


def _amount(value: object) -> int:
    return 0 if value in (0, "0") and not isinstance(value, bool) else _count(value)


def _seconds(value: object) -> float | None:
    return None if value in ("none", None) else _number(value)


def _size(value: object) -> int:
    if not isinstance(value, str):
        return _count(value)
    return _count(read_size(value))


def _optional_size(value: object) -> int | None:
    return None if value in ("none", None) else _size(value)


def _optional_count(value: object) -> int | None:
    return None if value in ("none", None) else _count(value)


def _memory(value: object) -> int:
    size = _size(value)
    if size < SMALLEST_MEMORY:
        raise ValueError
    return size


def _written_size(size: int | None) -> str:
    if size is None:
        return "none"
    unit = next(unit for unit in ("g", "m", "k", "") if size % UNITS[unit] == 0)
    return f"{size // UNITS[unit]}{unit}"


def _flag(value: object) -> bool:
    word = value.strip().lower() if isinstance(value, str) else value
    if word in (True, "1", "true", "yes", "on"):
        return True
    if word in (False, "0", "false", "no", "off"):
        return False
    raise ValueError


def _lines(value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise TypeError
    return tuple(_text(line) for line in value)


def _variables(value: object) -> dict[str, str | Secret]:
    pairs = value.items() if isinstance(value, Mapping) else [line.partition("=")[::2] for line in _lines(value)]
    variables = dict(pairs)
    if not all(isinstance(name, str) and isinstance(part, str | Secret) for name, part in variables.items()):
        raise TypeError
    if any("\0" in name + revealed(part) for name, part in variables.items()):
        raise TypeError
    if not all(name and "=" not in name for name in variables):
        raise ValueError
    if not isinstance(value, Mapping) and not all("=" in line for line in _lines(value)):
        raise ValueError
    return variables


def _without_values(value: object) -> object:
    """What is wrong with variables is told without their values; a line that has no `=` may be one."""
    if isinstance(value, Mapping):
        return {name: MASK if isinstance(part, str) else part for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_values(line) for line in value]
    return f"{value.partition('=')[0]}={MASK}" if isinstance(value, str) and "=" in value else MASK


def _users(value: object) -> tuple[str, ...]:
    from .core.users import UserEntry

    lines = _lines(value)
    for line in lines:
        UserEntry.parse(line)
    return lines


def _mounts(value: object) -> tuple[Mount, ...]:
    from .mounts import Mount, parsed

    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise TypeError
    return tuple(each if isinstance(each, Mount) else parsed(_text(each)) for each in value)


def one_of(choices: type[Enum]) -> Syntax:
    """The values of an enum, by name or as themselves."""
    names = [f"`{choice.value}`" for choice in choices]
    return Syntax(choices, f"{', '.join(names[:-1])} or {names[-1]}", lambda choice: str(choice.value))


IMAGE = Syntax(
    _image,
    "an image's name, name@digest or id, or a path that begins with `.`, `/` or `~`: of a folder with a Dockerfile, or "
    "of an image's archive",
)
USER = Syntax(_user, "a name, `uid`, `name:group` or `uid:gid`, or nothing for the image's own", str)
USERS = Syntax(
    _users,
    "`name`, `name:uid` or `name:uid:group,group=gid` lines, or `::group,group=gid` for groups alone; without a number "
    "it is the first free one from 1000 on",
    "\n".join,
    lines=True,
)
ENGINE = Syntax(_engine, "`auto`, `docker`, `podman`, or an endpoint that begins with `unix://`, `tcp://` or `ssh://`")
NETWORK = Syntax(_network, "`none`, `bridge`, or the name of an engine's network", lambda name: name or "none")
MOUNTS = Syntax(
    _mounts,
    "lines as of `docker run --mount`: `type=bind,source=./data,target=/data`, `type=volume,source=NAME,target=/n`, "
    "`type=tmpfs,target=/scratch,tmpfs-size=64m`; binds are read-only unless they say `readonly=false` (a marker also "
    "takes `Bind`, `Volume` and `Tmpfs`)",
    lambda mounts: "\n".join(map(str, mounts)),
    lines=True,
)
RUNTIME = Syntax(_runtime, "a name that the engine knows, or nothing for its default one")
ABSOLUTE_PATH = Syntax(_absolute_path, "an absolute path other than `/`, without `..`")
DIRECTORY = Syntax(_directory, "a path; a relative one starts at the run's root directory")
MEMORY = Syntax(_memory, "bytes, or a number with `k`, `m` or `g`, at least `6m`", _written_size)
OPTIONAL_SIZE = Syntax(_optional_size, "bytes, or a number with `k`, `m` or `g`; or `none`", _written_size)
SIZE = Syntax(_size, "bytes, or a number with `k`, `m` or `g`", _written_size)
NUMBER = Syntax(_number, "a number above 0", lambda number: f"{number:g}")
COUNT = Syntax(_count, "a whole number above 0")
OPTIONAL_COUNT = Syntax(
    _optional_count, "a whole number above 0, or `none`", lambda count: "none" if count is None else str(count)
)
SLOTS = Syntax(_amount, "a whole number, 0 for 8 per core, at least 16, at most one per 256 MiB of the engine's memory")
AMOUNT = Syntax(_amount, "a whole number, 0 for none")
SECONDS = Syntax(_seconds, "seconds above 0, or `none`", lambda number: "none" if number is None else f"{number:g}")
PATTERNS = Syntax(_lines, "patterns, one a line", "\n".join, lines=True)
FOLDER = Syntax(_text, "a folder, relative to pytest's rootdir; `none`; or nothing for one in the user's cache")
FILE = Syntax(_text, "a file, relative to pytest's rootdir; or nothing for none")
FLAG = Syntax(_flag, "`yes` or `no`", lambda flag: "yes" if flag else "no", flag=True)
VARIABLES = Syntax(
    _variables, "`NAME=value` lines (a marker also takes a dict)", "\n".join, lines=True, shown=_without_values
)


# --- the table ------------------------------------------------------------------------------------------------------


class Setting(NamedTuple):
    """A row: `memory` is --sandbox-memory, SANDBOX_MEMORY, the ini key sandbox_memory and the marker's memory=."""

    name: str
    syntax: Syntax
    help: str

    @property
    def option(self) -> str:
        return f"--sandbox-{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return f"SANDBOX_{self.name.upper()}"

    @property
    def ini(self) -> str:
        return f"sandbox_{self.name}"

    @property
    def default(self) -> str:
        """The default, as a user would write it."""
        return self.syntax.write(getattr(RUN_DEFAULTS if self in RUN_TABLE else DEFAULTS, self.name))

    def parse(self, value: object, source: str) -> object:
        try:
            return self.syntax.parse(value)
        except InvalidMount as error:
            raise InvalidMount(error.mount, error.reason, source) from None  # which of them, and why
        except (ValueError, TypeError):
            raise InvalidSetting(source, self.syntax.shown(value), self.syntax.expected) from None


TABLE = (
    Setting("image", IMAGE, "Image that sandboxes are made from; a relative path starts at the root directory."),
    Setting("pull", one_of(PullPolicy), "When to pull the image."),
    Setting("workspace", ABSOLUTE_PATH, "Directory that is restored between tests, and the commands' own."),
    Setting("user", USER, "Whom commands run as."),
    Setting("users", USERS, "Users that sandboxes have besides the image's, with a home directory and groups."),
    Setting(
        "service", FLAG, "Run the image's own program, its ENTRYPOINT and CMD, beside the commands: anew for each test."
    ),
    Setting("network", NETWORK, "Network of the sandbox; `none` leaves it the loopback interface only."),
    Setting("mounts", MOUNTS, "Directories, files and volumes that the sandbox has besides; nothing restores them."),
    Setting(
        "hardened",
        FLAG,
        "Commands have no capabilities and are not root unless `user` says so, can write to the workspace, `/tmp` and "
        "`/var/tmp` only, and have no network.",
    ),
    Setting("runtime", RUNTIME, "OCI runtime of the container, by the engine's name for it: `runsc` for gVisor, say."),
    Setting("memory", MEMORY, "Memory of a sandbox, in which `/tmp` and `/var/tmp` count too."),
    Setting("cpus", NUMBER, "CPU cores of a sandbox; fractions are taken."),
    Setting("pids", COUNT, "Processes and threads of a sandbox."),
    Setting(
        "disk",
        OPTIONAL_SIZE,
        "What the root file system and the workspace may each take, if the engine's storage can limit that.",
    ),
    Setting("file_size", OPTIONAL_SIZE, "Largest file that a command may write."),
    Setting("open_files", OPTIONAL_COUNT, "Files that each process of a command may have open."),
    Setting("timeout", SECONDS, "How long a command may run, unless the call says otherwise."),
    Setting(
        "isolation",
        one_of(Isolation),
        "What a test finds: a restored workspace, a new container, or whatever the last test left.",
    ),
    Setting("paranoid", FLAG, "Restoring compares the content of every file, also of those that look unchanged."),
    Setting(
        "confine",
        FLAG,
        "File operations of the session stay beneath the workspace root, wherever links lead; commands do not.",
    ),
    Setting("terminals", COUNT, "Terminals of a sandbox; beyond it an older one is closed for each new one."),
    Setting("ephemeral", PATTERNS, "Paths in the workspace that snapshots leave out."),
    Setting(
        "tolerated",
        PATTERNS,
        "Paths outside of the workspace that tests may change without their container being replaced.",
    ),
    Setting(
        "secrets",
        PATTERNS,
        "Names of environment variables whose values are masked in errors, reports and events; case does not count.",
    ),
    Setting("environment", VARIABLES, "Environment variables of commands, added to the image's."),
)
RUN_TABLE = (  # without a marker: they hold for the whole run
    Setting("engine", ENGINE, "Engine that sandboxes run on; `auto` is what the `docker` command uses, else any."),
    Setting(
        "pool",
        AMOUNT,
        "New sandboxes started ahead, beside the tests, once tests use them up (`isolation=container`, or changes "
        "outside of the workspace).",
    ),
    Setting(
        "slots", SLOTS, "Containers at a time, of all workers and runs of this user on the engine: the others wait."
    ),
    Setting("slots_timeout", SECONDS, "How long to wait for another container to go."),
    Setting("events", FILE, "File to which all operations of sandboxes are written, as JSON lines."),
    Setting("missing", one_of(MissingPolicy), "What tests that need an engine do on a machine where none answers."),
    Setting(
        "keep",
        one_of(KeepPolicy),
        "Of which tests the sandboxes outlive the run, eight at most: `pytest-sandbox shell` opens them.",
    ),
    Setting(
        "rerun_infrastructure",
        AMOUNT,
        "How often to run a test again, in a new sandbox, when the infrastructure has failed and nothing else.",
    ),
    Setting(
        "report",
        one_of(ReportPolicy),
        "Of which tests the report tells the last operations, the services and the changed files of their sandboxes.",
    ),
    Setting("record", one_of(RecordPolicy), "Of which tests to keep recordings of terminals (asciicast)."),
    Setting("recordings", DIRECTORY, "Directory of the recordings."),
    Setting("store", FOLDER, "Where baselines are kept for the next run."),
    Setting("store_size", SIZE, "Archives of baselines in the store: beyond it the longest unused go."),
    Setting("store_days", NUMBER, "Baselines not used for so many days go, their images on the engine included."),
    Setting("refresh", FLAG, "Make kept baselines anew, once in this run."),
)
BY_NAME = {setting.name: setting for setting in TABLE}
KEYWORDS = ", ".join(BY_NAME)


# --- the sources, from the strongest: marker, option, environment, ini, default ---------------------------------------


def add_options(parser: pytest.Parser) -> None:
    """Register an option and an ini key for each row."""
    group = parser.getgroup("sandbox", "sandboxes (also SANDBOX_… in the environment, sandbox_… in the ini file)")
    for setting in TABLE + RUN_TABLE:
        if setting.syntax.flag:
            group.addoption(setting.option, action="store_const", const="yes", help=setting.help)
        elif not setting.syntax.lines:
            described = f"{setting.help} Expects {setting.syntax.expected}. Default: {setting.default or 'empty'}"
            group.addoption(setting.option, metavar=setting.name.upper(), help=described)
        kind: Literal["linelist", "string"] = "linelist" if setting.syntax.lines else "string"
        parser.addini(setting.ini, setting.help, type=kind, default=None)


def configured(config: pytest.Config) -> SandboxSettings:
    """Return what options, environment and ini file say together. Raises InvalidSetting, which names the source."""
    return _anchored(replace(DEFAULTS, **_values(TABLE, config)), config.rootpath)


def run_configured(config: pytest.Config) -> RunSettings:
    """The same for what holds for the run."""
    return replace(RUN_DEFAULTS, **_values(RUN_TABLE, config))


def _values(table: tuple[Setting, ...], config: pytest.Config) -> dict[str, Any]:
    """What is set of a table's rows, by name; each row's syntax makes its field's type."""
    values: dict[str, Any] = {}
    for setting in table:
        for source, value in _sources(setting, config):
            values[setting.name] = setting.parse(value, source)
            break
    return values


def _sources(setting: Setting, config: pytest.Config) -> Iterator[tuple[str, object]]:
    """Yield what is set for a row, strongest first."""
    if not setting.syntax.lines:
        if (option := config.getoption(setting.option)) is not None:
            yield setting.option, option
        if variable := os.environ.get(setting.variable):  # CI systems write an unset variable as an empty one
            yield setting.variable, variable
    if (ini := config.getini(setting.ini)) is not None:
        overridden = any(line.startswith(f"{setting.ini}=") for line in config.getoption("override_ini") or ())
        file = "-o" if overridden or config.inipath is None else config.inipath.name
        yield f"{setting.ini} ({file})", ini


def marked(settings: SandboxSettings, node: pytest.Item | pytest.Collector) -> SandboxSettings:
    """Return the settings with those of a node's `sandbox` markers; the closest one wins, keyword by keyword."""
    overrides: dict[str, object] = {}
    for mark in node.iter_markers("sandbox"):
        if mark.args:
            raise InvalidSetting("@pytest.mark.sandbox", mark.args[0], f"keywords only: {KEYWORDS}")
        overrides = {**mark.kwargs, **overrides}
    return overridden(settings, overrides, "@pytest.mark.sandbox", node.config.rootpath)


def overridden(
    settings: SandboxSettings, overrides: Mapping[str, object], source: str, root: Path | None = None
) -> SandboxSettings:
    """Return the settings with the keywords of a marker or a call; source: what was written before the parenthesis.

    root: the directory of the run, where relative paths begin; without it they stay as they are.
    Raises InvalidSetting for a name or value not taken.
    """
    for name in overrides:
        if name not in BY_NAME:
            near = "".join(f"`{word}`, or another " for word in difflib.get_close_matches(name, BY_NAME, n=1))
            raise InvalidSetting(source, name, f"{near or 'a '}keyword out of {KEYWORDS}")
    values = {name: BY_NAME[name].parse(value, f"{source}({name}=…)") for name, value in overrides.items()}
    if not values:
        return settings
    settings = replace(settings, **values)  # type: ignore[arg-type]
    return settings if root is None else _anchored(settings, root)


def _anchored(settings: SandboxSettings, root: Path) -> SandboxSettings:
    """The same settings, relative paths of this host taken from a directory."""
    if not isinstance(settings.image, str):
        settings = replace(settings, image=replace(settings.image, path=root / settings.image.path))
    if settings.mounts:
        from .mounts import anchored

        settings = replace(settings, mounts=anchored(settings.mounts, root))
    return settings


# --- the reference --------------------------------------------------------------------------------------------------


REFERENCE = """\
# Settings

<!-- Printed by `python -m pytest_sandbox.settings`; a test keeps it current. -->

Each setting has one name in five places. For `memory`: the marker `@pytest.mark.sandbox(memory="512m")`, the option
`--sandbox-memory=512m`, the environment variable `SANDBOX_MEMORY=512m`, the ini key `sandbox_memory = 512m`, and the
field `SandboxSettings.memory`, which holds the default. The first of them that is set wins, in this order. The fixture
`sandbox_settings`, when you override it, takes the place of all but the marker.

A marker holds for the fixtures of its own scope: on a test for `sandbox` and `sandbox_factory`, on a class also for
`class_sandbox`, as `pytestmark` of a module also for `module_sandbox`. The closest marker wins, keyword by keyword.

Settings marked ¹ hold several lines and have no option and no variable.

| setting | what it says | expects | default |
|---|---|---|---|
"""

RUN_REFERENCE = """
## Of the run

These hold for a whole run and so have no marker; all else is as above. Options that expect `yes` or `no` stand alone:
`--sandbox-refresh` is yes.

| setting | what it says | expects | default |
|---|---|---|---|
"""


def reference() -> str:
    """Return docs/settings.md."""
    sandboxes, run = ("".join(f"{_reference_row(setting)}\n" for setting in table) for table in (TABLE, RUN_TABLE))
    return REFERENCE + sandboxes + (RUN_REFERENCE + run if run else "")


def _reference_row(setting: Setting) -> str:
    note = "¹" if setting.syntax.lines else ""
    default = f"`{setting.default}`" if setting.default else "empty"
    return f"| `{setting.name}`{note} | {setting.help} | {setting.syntax.expected} | {default} |"


if __name__ == "__main__":
    sys.stdout.write(reference())
