"""What a long transfer tells whoever watches; the clock is set so that nobody has to wait for it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from pytest_sandbox import Sandbox
from pytest_sandbox.core import progress
from pytest_sandbox.core.progress import LARGE, Transfer
from pytest_sandbox.engines.base import Engine
from pytest_sandbox.models import MEBIBYTE, SandboxSettings
from tests.support.subprocess_engine import SubprocessEngine


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0)
    monkeypatch.setattr(progress, "INTERVAL", 0)


def test_a_transfer_that_is_small_or_soon_over_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    with Transfer(told.append, "fast") as transfer:
        transfer.count(2 * LARGE)
    monkeypatch.setattr(progress, "PATIENCE", 0)
    with Transfer(told.append, "small") as transfer:
        transfer.count(LARGE - 1)

    assert told == []


def test_a_long_one_tells_how_far_it_is_and_ends_also_when_it_fails(impatient: None) -> None:
    told: list[str] = []

    def fail() -> None:
        with Transfer(told.append, "slow", 512 * MEBIBYTE) as transfer:
            transfer.count(120 * MEBIBYTE)
            raise LookupError

    with pytest.raises(LookupError):
        fail()

    assert told == ["slow: 120 of 512 MiB", ""]


def test_a_name_does_nothing_to_the_terminal(impatient: None) -> None:
    told: list[str] = []

    with Transfer(told.append, "reading \x1b[2Jfile\n") as transfer:
        transfer.count(LARGE)

    assert told[0] == "reading ?[2Jfile?: 8 MiB"


def test_lines_keep_a_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(progress, "PATIENCE", 0)

    with Transfer(told.append, "many") as transfer:
        for _ in range(100):
            transfer.count(LARGE)

    assert told == ["many: 8 MiB", ""]


def test_each_kind_of_transfer_is_told(
    impatient: None, engine: Engine, settings: SandboxSettings, tmp_path: Path
) -> None:
    if isinstance(engine, SubprocessEngine):
        settings = replace(settings, workspace=PurePosixPath(tmp_path / "workspace"))
    told: list[str] = []
    before, engine.progress = engine.progress, told.append
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(bytes(9 * MEBIBYTE))
    try:
        with Sandbox.create(settings, engine) as sandbox:
            sandbox.write_bytes("written", io.BytesIO(bytes(9 * MEBIBYTE)))
            sandbox.upload(tree / "file", "copied")
            sandbox.upload(tree, "there")
            sandbox.read_bytes("copied")
            sandbox.hydrate(sandbox.persist())
            sandbox.write_bytes("small", b"small")
    finally:
        engine.progress = before

    kinds = list(dict.fromkeys(line.partition(": ")[0] for line in told if line))
    root = str(settings.workspace)
    assert kinds == [
        "writing written",
        "writing copied",
        "uploading tree",
        "reading copied",
        f"fetching {root}",
        f"filling {root}",
    ]
    assert "writing copied: 8 of 9 MiB" in told
    assert told[-1] == ""
    assert told.count("") == len(kinds)
