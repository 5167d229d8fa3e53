"""Testing on a large archive: seconds of set-up, paid once for all workers and for every run after the first.

Shown here: a set-up declared as a Baseline, so that it can be kept; the tests, each of which may ruin the archive. Try
`pytest -n 4` twice, and `--sandbox-refresh`.
"""

from __future__ import annotations

import pytest

from pytest_sandbox import Baseline, Sandbox

# A year of readings in files of their own, and a manifest of their checksums: some thousand processes.
FILL = """\
set -e
for day in $(seq 365); do
    mkdir -p readings/$day
    for hour in 0 6 12 18; do
        echo "$day $hour $((day * hour % 37))" >readings/$day/$hour
        sha256sum readings/$day/$hour >>manifest
    done
done
"""


@pytest.fixture(scope="module")
def sandbox_baseline() -> Baseline:
    return Baseline(files={"fill": FILL}, commands=["sh fill", "rm fill"])


def complaints(sandbox: Sandbox) -> list[str]:
    """What the check of the archive finds fault with."""
    result = sandbox.exec("sha256sum -c manifest 2>/dev/null")
    return [line for line in result.stdout.text.splitlines() if not line.endswith(": OK")]


def test_the_archive_is_sound(sandbox: Sandbox) -> None:
    assert complaints(sandbox) == []


@pytest.mark.parametrize("day", [1, 90, 180, 365])
def test_a_changed_reading_is_found(sandbox: Sandbox, day: int) -> None:
    sandbox.write_text(f"readings/{day}/12", "0 0 0\n")

    assert complaints(sandbox) == [f"readings/{day}/12: FAILED"]


def test_a_lost_reading_is_found(sandbox: Sandbox) -> None:
    sandbox.remove("readings/200/6")

    assert len(complaints(sandbox)) == 1


def test_a_lost_manifest_is_no_sound_archive(sandbox: Sandbox) -> None:
    sandbox.remove("manifest")

    assert not sandbox.exec("sha256sum -c manifest").ok


def test_nothing_is_left_for_the_next_test(sandbox: Sandbox) -> None:
    sandbox.exec("rm -rf readings", check=True)

    assert len(complaints(sandbox)) == 365 * 4
