"""Testing a command-line tool that destroys files for a living.

Shown here: a baseline of a local program, files and set-up commands; tests that break everything and harm no other;
fingerprints, for "nothing at all was changed"; a full disk and a kill in mid-work, which no mock can stand for.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from pytest_sandbox import Baseline, Sandbox

HERE = Path(__file__).parent
TIDY = ["python3", "bin/logtidy.py"]

FRESH, WEEK_OLD, ANCIENT = "logs/today.log", "logs/app/last week.log", "logs/app/-rf.log"
LINES = "".join(f'10.0.0.{n % 250} - - "GET /item/{n} HTTP/1.1" 200 {n * 7}\n' for n in range(2000))


@pytest.fixture(scope="module")
def sandbox_baseline() -> Baseline:
    """Made once; each test below begins with these logs, whatever the tests before it did to them."""
    return Baseline(
        trees={"bin/logtidy.py": HERE / "logtidy.py"},
        files={FRESH: LINES, WEEK_OLD: LINES, ANCIENT: LINES, "logs/notes.txt": "not a log", "precious/old.log": LINES},
        commands=[
            ["touch", "-d", "10 days ago", WEEK_OLD],
            ["touch", "-d", "1 year ago", ANCIENT, "logs/notes.txt", "precious/old.log"],
            # Two ways out of the directory that the tool must not take.
            ["ln", "-s", "../../precious", "logs/app/elsewhere"],
            ["ln", "-s", "../precious/old.log", "logs/linked.log"],
        ],
    )


def logs(sandbox: Sandbox) -> set[str]:
    return {str(entry.path) for entry in sandbox.walk("logs") if entry.is_file}


def test_old_logs_are_compressed_and_ancient_ones_deleted(sandbox: Sandbox) -> None:
    sandbox.exec([*TIDY, "logs"], check=True)

    assert logs(sandbox) == {"today.log", "app/last week.log.gz", "notes.txt"}
    assert gzip.decompress(sandbox.read_bytes("logs/app/last week.log.gz")).decode() == LINES


def test_a_dry_run_changes_nothing_at_all(sandbox: Sandbox) -> None:
    before = sandbox.persist().fingerprint(times=True)

    result = sandbox.exec([*TIDY, "--dry-run", "logs"], check=True)

    assert result.stdout.text.splitlines() == [f"delete {ANCIENT}", f"compress {WEEK_OLD}"]
    assert sandbox.persist().fingerprint(times=True) == before


def test_links_are_no_way_out_of_the_directory(sandbox: Sandbox) -> None:
    sandbox.exec([*TIDY, "--compress=0", "--delete=0", "logs"], check=True)

    assert sandbox.read_text("precious/old.log") == LINES
    assert sandbox.lstat("logs/linked.log").is_symlink


def test_a_second_run_finds_nothing_to_do(sandbox: Sandbox) -> None:
    sandbox.exec([*TIDY, "logs"], check=True)

    assert sandbox.exec([*TIDY, "logs"], check=True).stdout == b""


def test_a_compressed_log_keeps_its_age_and_mode(sandbox: Sandbox) -> None:
    sandbox.chmod(WEEK_OLD, 0o640)
    before = sandbox.stat(WEEK_OLD)

    sandbox.exec([*TIDY, "logs"], check=True)

    after = sandbox.stat(WEEK_OLD + ".gz")
    assert (after.mode, after.mtime_ns) == (0o640, before.mtime_ns)


def test_what_may_not_be_read_is_left_alone(sandbox: Sandbox) -> None:
    sandbox.chmod(WEEK_OLD, 0o600)

    # As another user: root in a sandbox may do anything, as root anywhere.
    result = sandbox.exec([*TIDY, "--delete=9999", "logs"], user="nobody")

    assert result.exit_code == 1
    assert "PermissionError" in result.stderr.text
    assert sandbox.read_text(WEEK_OLD) == LINES


@pytest.mark.sandbox(memory="128m")
def test_a_full_disk_costs_no_log(sandbox: Sandbox) -> None:
    # /tmp is a file system of its own, half as large as the sandbox's memory.
    sandbox.exec("cp -Rp logs /tmp/logs; cat /dev/zero >/tmp/the-rest")

    result = sandbox.exec([*TIDY, "--delete=9999", "/tmp/logs"])

    assert "No space left on device" in result.stderr.text
    assert sandbox.read_text("/tmp/logs/app/last week.log") == LINES


def test_killed_in_mid_work_it_loses_no_log(sandbox: Sandbox) -> None:
    big = "logs/big.log"
    sandbox.exec(f"head -c 100000000 /dev/urandom >{big}; touch -d '9 days ago' {big}", check=True)
    size = sandbox.stat(big).size

    with sandbox.start(["python3", "-u", *TIDY[1:], "logs"]) as tidy:
        while big.encode() not in tidy.stdout.read_line():
            pass  # it announces each file before it works on it
        tidy.send_signal("KILL")
        assert tidy.wait().exit_code == -9

    assert sandbox.stat(big).size == size
    assert not sandbox.exists(big + ".gz")


@pytest.mark.parametrize("disaster", ["rm -rf logs", "rm -rf /workspace/* /tmp/*", "chmod -R 0 .", "mv logs gone"])
def test_each_test_can_break_everything(sandbox: Sandbox, disaster: str) -> None:
    """The one after it, whichever it is, finds all in its place."""
    assert sandbox.read_text(FRESH) == LINES

    sandbox.exec(disaster, check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-directory"], "is not a directory"),
        (["--compress=30", "--delete=7", "logs"], "must not be greater"),
        (["--delete=soon", "logs"], "invalid float value"),
    ],
)
def test_bad_arguments_destroy_nothing(sandbox: Sandbox, arguments: list[str], message: str) -> None:
    before = sandbox.persist().fingerprint(times=True)

    result = sandbox.exec([*TIDY, *arguments])

    assert not result.ok
    assert message in result.stderr.text
    assert sandbox.persist().fingerprint(times=True) == before
