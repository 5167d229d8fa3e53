"""Locks between processes: who is told what."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import filelock
import pytest

from pytest_sandbox.engines.locks import is_held, locked
from pytest_sandbox.errors import HostFolderUnusable


@pytest.mark.parametrize(("held", "by_all", "by_shared"), [(fcntl.LOCK_SH, True, False), (fcntl.LOCK_EX, True, True)])
def test_a_lock_is_held_to_whoever_it_excludes(tmp_path: Path, held: int, by_all: bool, by_shared: bool) -> None:
    path = tmp_path / "lock"
    with path.open("w") as holder:
        fcntl.flock(holder, held)

        assert is_held(os.open(path, os.O_RDWR)) == by_all
        assert is_held(os.open(path, os.O_RDWR), fcntl.LOCK_SH) == by_shared
    assert not is_held(os.open(path, os.O_RDWR))


def test_one_that_does_not_come_free_is_no_fault_of_its_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", 0), pytest.raises(filelock.Timeout), locked(tmp_path / "lock", 0):
        pass


def test_a_folder_that_can_not_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(HostFolderUnusable, match="file of this host can't be used"), locked(tmp_path / "file/lock", 0):
        pass
