"""--sandbox-record: which terminals of which tests are in files afterwards."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from pytest_sandbox.recordings import LONGEST_NAME, file_name

from .conftest import RunSuite

SUITE = """
    def test_passes(terminal):
        terminal.sendline("echo pass''es")
        terminal.expect("passes")

    def test_fails(sandbox):
        with sandbox.terminal(["echo", "first one"]) as one, sandbox.terminal("echo second; cat") as two:
            one.wait()
            two.expect("second")
            assert 1 == 2

    def test_has_no_terminal(sandbox):
        assert 1 == 2
"""


def recorded(folder: Path) -> dict[str, str]:
    """What was written on each recorded terminal, by the file's name without its hash."""
    files = {}
    for path in folder.glob("*.cast"):
        _, *events = map(json.loads, path.read_text().splitlines())
        name, _, number = path.stem.rsplit("-", 2)
        files[f"{name}-{number}"] = "".join(text for _, code, text in events if code == "o")
    return files


@pytest.mark.docker
def test_nothing_is_recorded_by_default(suite: RunSuite, pytester: pytest.Pytester) -> None:
    suite(SUITE).assert_outcomes(passed=1, failed=2)

    assert not (pytester.path / "sandbox-recordings").exists()


@pytest.mark.docker
def test_terminals_of_failed_tests_are_kept_and_named_in_the_report(
    suite_both_ways: RunSuite, pytester: pytest.Pytester
) -> None:
    result = suite_both_ways(SUITE, "--sandbox-record=failed")

    folder = pytester.path / "sandbox-recordings"
    assert recorded(folder) == {
        "test_suite.py_test_fails-1": "first one\r\n",
        "test_suite.py_test_fails-2": "second\r\n",
    }
    result.stdout.fnmatch_lines(["*sandbox recordings*", f"{folder}/test_suite.py_test_fails-*-1.cast"])
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.iterdir())


@pytest.mark.docker
def test_terminals_of_all_tests_are_kept_where_asked(suite: RunSuite, pytester: pytest.Pytester) -> None:
    suite(SUITE, "--sandbox-record=all", "--sandbox-recordings=kept/here")

    assert set(recorded(pytester.path / "kept" / "here")) == {
        "test_suite.py_test_passes-1",
        "test_suite.py_test_fails-1",
        "test_suite.py_test_fails-2",
    }


@pytest.mark.docker
def test_a_shared_sandboxs_terminals_belong_to_the_test_that_opened_them(
    suite: RunSuite, pytester: pytest.Pytester
) -> None:
    source = """
        def test_one(module_sandbox):
            module_sandbox.terminal("echo one").wait()

        def test_two(module_sandbox):
            module_sandbox.fork().terminal("echo two").wait()
            assert 1 == 2
    """
    suite(source, "--sandbox-record=failed")

    assert recorded(pytester.path / "sandbox-recordings") == {"test_suite.py_test_two-1": "two\r\n"}


@pytest.mark.docker
def test_a_recording_that_cannot_be_written_hides_no_failure(suite: RunSuite, pytester: pytest.Pytester) -> None:
    (pytester.path / "sandbox-recordings").write_text("a file")

    result = suite(SUITE, "--sandbox-record=failed")

    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["*-1.cast could not be written: *"])


@pytest.mark.docker
def test_an_unknown_policy_is_refused(suite: RunSuite) -> None:
    result = suite(SUITE, "--sandbox-record=some")

    result.stderr.fnmatch_lines(["*--sandbox-record*some*`off`, `failed` or `all`*"])


@pytest.mark.parametrize("test", ["../../etc/passwd", "a::b[\x00/\\ü :*?]", ".hidden", "", "x" * 5000, "\ud800"])
def test_file_names_are_safe_whatever_the_test_is_called(test: str) -> None:
    name = file_name(test)

    assert name.isascii()
    assert not set(name) & set('/\\\0 :*?"<>|')
    assert not name.startswith(".")
    assert len(name) <= LONGEST_NAME + 9


def test_file_names_of_two_tests_differ() -> None:
    assert file_name("a.py::b_c") != file_name("a.py::b::c")
