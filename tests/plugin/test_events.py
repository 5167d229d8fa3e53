from __future__ import annotations

import json

import pytest

TESTS = """
import pytest

def test_one(sandbox):
    assert sandbox.exec("echo $MY_KEY").stdout == b"very secret\\n"

@pytest.mark.sandbox(isolation="container")
def test_two(sandbox):
    sandbox.exec("true")
"""
INI = """
[pytest]
sandbox_events = logs/events.jsonl
sandbox_environment =
    MY_KEY=very secret
"""


@pytest.mark.parametrize("arguments", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_a_run_has_one_file_of_events(pytester: pytest.Pytester, arguments: list[str]) -> None:
    pytester.makepyfile(test_a=TESTS)
    pytester.makeini(INI)
    file = pytester.path / "logs" / "events.jsonl"

    for _ in range(2):  # the second one's takes the place of the first one's
        pytester.runpytest_subprocess(*arguments).assert_outcomes(passed=2)

    events = [json.loads(line) for line in file.read_text().splitlines()]
    tests = sorted(event["test"] for event in events if event["kind"] == "exec")
    assert tests == ["test_a.py::test_one"] * 2 + ["test_a.py::test_two"] * 2
    started = {event["session"] for event in events if event["kind"] == "create" and "outcome" in event}
    assert started == {event["session"] for event in events if event["kind"] == "remove" and "outcome" in event}
    assert len(started) == 2
    assert "very secret" not in file.read_text()


def test_a_file_that_can_not_be_written_is_a_usage_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_a=TESTS)
    pytester.path.joinpath("blocked").touch()

    result = pytester.runpytest_subprocess("--sandbox-events=blocked/events.jsonl")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --sandbox-events*blocked/events.jsonl*"])
