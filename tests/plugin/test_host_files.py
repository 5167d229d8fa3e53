"""What is written on the host is for this user only, whatever the umask."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from .conftest import RunSuite

pytestmark = pytest.mark.docker


def test_files_on_the_host_are_their_owners_alone(
    suite: RunSuite, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.delenv("SANDBOX_STORE")
    pytester.makeconftest("import os; os.umask(0)")
    options = ("--sandbox-events=events.jsonl", "--sandbox-record=all", "--sandbox-keep=always")

    result = suite(
        """
        import pytest
        from pytest_sandbox import Baseline

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            return Baseline(files={"file": "x"})

        def test_all(sandbox, terminal):
            terminal.sendline("exit")
            terminal.wait()
            sandbox.state()
            assert sandbox.read_text("file") == "x"
        """,
        *options,
    )

    result.assert_outcomes(passed=1)
    made = [path for variable in ("XDG_STATE_HOME", "XDG_CACHE_HOME") for path in (tmp_path / variable).rglob("*")]
    recordings = pytester.path / "sandbox-recordings"
    made += [pytester.path / "events.jsonl", recordings, *recordings.rglob("*")]
    assert {str(path): oct(_mode(path)) for path in made if _mode(path) & 0o077} == {}
    # Of each kind there is one: a folder that nobody looked into would not show.
    names = {part for path in made for part in path.parts}
    assert {"runs", "slots", "kept", "engines", "store", "objects", "events.jsonl"} <= names
    assert any(name.endswith(".cast") for name in names)
    pytester.run(sys.executable, "-m", "pytest_sandbox.cli", "rm", "--all")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)
