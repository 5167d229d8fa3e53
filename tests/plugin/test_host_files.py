"""What is written on the host: for this user only, whatever the umask; and where that can't be, it is told."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path

import pytest

from .conftest import Remains, RunSuite, StartSuite

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


def mounting(folder: Path, options: str) -> list[str]:
    """A program that runs what follows it with a file system of its own at a folder, of which nothing is left."""
    mount = f'mount -t tmpfs -o {options} none {folder} && exec "$@"'
    return ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "sh", "-c", mount, "sh"]


def test_a_snapshot_that_has_no_room_on_the_host_fails_its_test_alone(start: StartSuite, remains: Remains) -> None:
    run = start(
        """
        def test_large(sandbox):
            sandbox.exec("head -c 8388608 /dev/urandom > large", check=True)
            sandbox.snapshot()

        def test_next(sandbox):
            assert sandbox.snapshot()
        """,
        by=mounting(remains.temporary, "size=1m"),
    )

    output, _ = run.communicate(timeout=60)

    assert "1 failed, 1 passed" in output, output
    assert f"NoSpaceOnHost: no space left in {remains.temporary} on this host" in output
    remains.wait_until_none([])


@pytest.mark.parametrize(
    ("variable", "options", "reason"),
    [
        ("XDG_STATE_HOME", "size=4k", "No space left on device"),  # one file has room
        ("XDG_STATE_HOME", "ro", "Read-only file system"),
        ("XDG_CACHE_HOME", "ro", "Read-only file system"),
    ],
)
def test_where_runs_cannot_write_what_they_need_they_fail_in_a_few_lines(
    start: StartSuite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, options: str, reason: str
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv(variable, str(tmp_path / "folder"))
    run = start("def test_some(sandbox): pass", by=mounting(tmp_path / "folder", options))

    output, _ = run.communicate(timeout=60)

    assert run.returncode == pytest.ExitCode.TESTS_FAILED, output
    assert re.search(rf"HostFolderUnusable: {tmp_path}/folder/\S+ of this host can't be used: {reason}", output), output
    assert "name directories that can be written to" in output
    assert len(output.splitlines()) <= 25, output


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)
