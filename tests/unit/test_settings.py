"""The one table of settings."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path, PurePosixPath

import pytest

from pytest_sandbox.configuration import RunSettings
from pytest_sandbox.errors import InvalidMount, InvalidSetting
from pytest_sandbox.image import Image
from pytest_sandbox.models import Isolation, PullPolicy, SandboxSettings
from pytest_sandbox.mounts import Bind, Tmpfs
from pytest_sandbox.settings import BY_NAME, DEFAULTS, FLAG, RUN_TABLE, TABLE, overridden, reference

MEBIBYTE = 1024**2


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("image", " python:3.13-slim ", "python:3.13-slim"),
        ("image", "./web", Image(Path("web"))),
        ("image", "/srv/image.tar", Image(Path("/srv/image.tar"))),
        ("image", Image(Path("web"), target="test"), Image(Path("web"), target="test")),
        ("pull", "always", PullPolicy.ALWAYS),
        ("pull", PullPolicy.NEVER, PullPolicy.NEVER),
        ("workspace", "/srv/work/", PurePosixPath("/srv/work")),
        ("workspace", PurePosixPath("/srv"), PurePosixPath("/srv")),
        ("user", "nobody", "nobody"),
        ("user", "1000:1000", "1000:1000"),
        ("user", 1000, "1000"),
        ("user", "", ""),
        ("network", "none", ""),
        ("network", None, ""),
        ("network", "bridge", "bridge"),
        ("memory", "512m", 512 * MEBIBYTE),
        ("memory", "1.5G", 1536 * MEBIBYTE),
        ("memory", "6291456", 6 * MEBIBYTE),
        ("memory", 64 * MEBIBYTE, 64 * MEBIBYTE),
        ("cpus", "0.5", 0.5),
        ("cpus", 2, 2.0),
        ("pids", "100", 100),
        ("timeout", "2.5", 2.5),
        ("timeout", "none", None),
        ("timeout", None, None),
        ("terminals", "8", 8),
        ("isolation", "container", Isolation.CONTAINER),
        ("ephemeral", ["*.pyc", "build/out"], ("*.pyc", "build/out")),
        ("environment", ["A=b=c", "EMPTY="], {"A": "b=c", "EMPTY": ""}),
        ("environment", {"A": "b"}, {"A": "b"}),
        ("mounts", [" type=bind,src=x,dst=/x ", Tmpfs("/y")], (Bind("x", "/x"), Tmpfs("/y"))),
        ("mounts", (), ()),
    ],
)
def test_values_are_taken_as_text_and_as_themselves(name: str, written: object, value: object) -> None:
    assert getattr(overridden(DEFAULTS, {name: written}, "here"), name) == value


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("image", ""),
        ("image", "two words"),
        ("image", 3),
        ("pull", "sometimes"),
        ("pull", None),
        ("workspace", "relative"),
        ("workspace", "/"),
        ("workspace", "/a/../b"),
        ("workspace", "/nul\0"),
        ("workspace", 3),
        ("user", -1),
        ("user", True),
        ("user", None),
        ("network", "two words"),
        ("network", 1),
        ("memory", "512x"),
        ("memory", "-1m"),
        ("memory", "5m"),
        ("memory", 1024),
        ("memory", True),
        ("memory", None),
        ("cpus", "0"),
        ("cpus", "nan"),
        ("cpus", math.inf),
        ("pids", "1.5"),
        ("pids", 0),
        ("timeout", "-1"),
        ("timeout", "soon"),
        ("timeout", True),
        ("isolation", "total"),
        ("ephemeral", "one"),
        ("ephemeral", [1]),
        ("environment", "A=b"),
        ("environment", ["A"]),
        ("environment", ["=b"]),
        ("environment", {"A=": "b"}),
        ("environment", {"": "b"}),
        ("environment", {"A": 1}),
        ("environment", {"A": "nul\0"}),
        ("mounts", "type=tmpfs,target=/x"),
        ("mounts", Tmpfs("/x")),
        ("mounts", [3]),
    ],
)
def test_other_values_are_refused_by_name(name: str, written: object) -> None:
    with pytest.raises(InvalidSetting) as refused:
        overridden(DEFAULTS, {name: written}, "here")

    told = BY_NAME[name].syntax.shown(written)
    assert str(refused.value).startswith(f"here({name}=…): {told!r} is not valid; expected ")
    assert refused.value.expected == BY_NAME[name].syntax.expected


def test_a_mount_is_refused_by_itself() -> None:
    with pytest.raises(InvalidMount) as refused:
        overridden(DEFAULTS, {"mounts": [Tmpfs("/y"), "type=tmpfs"]}, "here")

    assert str(refused.value) == "here(mounts=…): mount 'type=tmpfs': it needs a target"


def test_relative_paths_of_this_host_begin_at_the_root_directory() -> None:
    settings = overridden(DEFAULTS, {"image": "./web", "mounts": [Bind("x", "/x")]}, "here", Path("/root"))

    assert settings.image == Image(Path("/root/web"))
    assert settings.mounts == (Bind("/root/x", "/x"),)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    known = "expected `memory`, or another keyword out of image, pull"
    with pytest.raises(InvalidSetting, match=f"here: 'memmory' is not valid; {known}"):
        overridden(DEFAULTS, {"memmory": 1}, "here")


def test_the_table_has_a_row_for_each_field_of_the_settings() -> None:
    assert set(BY_NAME) == {field.name for field in fields(SandboxSettings)}
    assert {setting.name for setting in RUN_TABLE} == {field.name for field in fields(RunSettings)}


@pytest.mark.parametrize(
    ("written", "meant"), [("yes", True), ("ON", True), (" 1", True), (False, False), ("no", False)]
)
def test_a_flag_is_a_word_for_yes_or_no(written: object, meant: bool) -> None:
    assert FLAG.parse(written) is meant


def test_a_flag_that_is_neither_is_refused() -> None:
    with pytest.raises(ValueError):
        FLAG.parse("perhaps")


@pytest.mark.parametrize("name", [setting.name for setting in TABLE if not setting.syntax.lines])
def test_a_default_as_it_is_documented_is_the_default(name: str) -> None:
    setting = BY_NAME[name]

    assert setting.parse(setting.default, "docs") == getattr(DEFAULTS, name)


def test_the_reference_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "settings.md"

    assert page.read_text() == reference(), "run `python -m pytest_sandbox.settings > docs/settings.md`"
