"""What a baseline is known by, of what can be told without a sandbox."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_sandbox.keeping import outline


def linked_elsewhere(tree: Path) -> None:
    (tree / "link").unlink()
    (tree / "link").symlink_to("elsewhere")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "b" / "empty").mkdir(parents=True)
    (tree / "a").write_text("1")
    (tree / "b" / "c").write_text("2")
    (tree / "link").symlink_to("b")
    return tree


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "a").write_text("22"),
        lambda tree: os.utime(tree / "b" / "c", ns=(1, 1)),
        lambda tree: (tree / "a").chmod(0o600),
        lambda tree: (tree / "b" / "empty").rmdir(),
        lambda tree: (tree / "new").touch(),
        lambda tree: (tree / "b" / "c").rename(tree / "b" / "d"),
        linked_elsewhere,
    ],
)
def test_any_change_below_a_bind_shows(tree: Path, change: Callable[[Path], object]) -> None:
    before = outline(tree)
    assert outline(tree) == before

    change(tree)

    assert outline(tree) != before


def test_a_file_shows_too_and_what_is_not_here_is_all_the_same(tree: Path) -> None:
    before = outline(tree / "a")
    (tree / "a").write_text("22")

    assert outline(tree / "a") != before
    assert outline(tree / "no") == outline(tree / "nor this")
