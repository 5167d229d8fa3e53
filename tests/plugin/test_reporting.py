"""What a run says about sandboxes: the engine's line, short errors, the class of failure."""

from __future__ import annotations

import socket
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import IMAGE, RunSuite

pytestmark = pytest.mark.docker

PASSES = """
    def test_passes(sandbox): pass
"""


@pytest.fixture
def silent_engine(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An engine that takes connections and never answers."""
    path = str(pytester.path / "silent.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        yield path


def error_blocks(result: pytest.RunResult) -> list[list[str]]:
    """The lines below each `ERROR at setup of …` or `test_… ` rule, up to the next rule."""
    blocks: list[list[str]] = []
    for line in result.outlines:
        if line.startswith("____"):
            blocks.append([])
        elif line.startswith("===="):
            if blocks:
                break
        elif blocks:
            blocks[-1].append(line)
    return blocks


def test_the_engine_is_named_when_tests_use_it(suite: RunSuite) -> None:
    result = suite(PASSES)

    result.stdout.re_match_lines([rf"sandbox: docker \d+\.\S+ at \S+ \(.+\), linux/(x86_64|aarch64), image {IMAGE}$"])


def test_the_engine_is_named_by_the_workers(suite: RunSuite) -> None:
    result = suite(PASSES, "-n2")

    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines([rf"sandbox: docker \d+\.\S+ at \S+ \(.+\), linux/(x86_64|aarch64), image {IMAGE}$"])


def test_the_engine_is_not_asked_when_no_test_uses_it(suite: RunSuite, silent_engine: str) -> None:
    result = suite("def test(sandbox_settings): pass")

    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("sandbox: *")


def test_collecting_does_not_ask_the_engine(suite: RunSuite, silent_engine: str) -> None:
    suite(PASSES, "--collect-only").stdout.no_fnmatch_line("sandbox: *")


def test_an_engine_that_is_missing_fails_each_test_in_a_few_lines(
    suite_both_ways: RunSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")

    result = suite_both_ways(
        """
        import pytest

        @pytest.mark.parametrize("turn", [1, 2, 3])
        def test_needs_it(sandbox, turn): pass
        """
    )

    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines(["sandbox: no container engine answers at unix:///nowhere/docker.sock: *"])
    blocks = error_blocks(result)
    assert len(blocks) == 3
    for block in blocks:
        assert len(block) <= 15
        shown = "\n".join(block)
        assert "EngineNotReachable: no container engine answers at unix:///nowhere/docker.sock" in shown
        assert "set DOCKER_HOST" in shown


@pytest.mark.parametrize("choice", ["docker", "tcp://127.0.0.1:1"])
def test_the_engine_may_be_chosen_by_an_option(suite: RunSuite, choice: str) -> None:
    result = suite(PASSES, f"--sandbox-engine={choice}")

    if choice == "docker":
        result.assert_outcomes(passed=1)
    else:
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines([f"sandbox: no container engine answers at {choice}: *[Rr]efused", "*"])


def test_no_engine_of_the_chosen_kind_fails_each_test_in_a_few_lines(
    suite: RunSuite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")

    result = suite(PASSES, "--sandbox-engine=podman")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["sandbox: no container engine was found, *"])
    (block,) = error_blocks(result)
    assert len(block) <= 15
    assert "`podman system service` (started for this run): no such program on PATH" in "\n".join(block)


def test_an_engine_that_hangs_is_waited_for_once(suite: RunSuite, silent_engine: str) -> None:
    result = suite(
        """
        import pytest

        @pytest.mark.parametrize("turn", range(8))
        def test_needs_it(sandbox, turn): pass
        """
    )

    result.assert_outcomes(errors=8)
    result.stdout.fnmatch_lines([f"sandbox: *{silent_engine}*"])
    assert all(len(block) <= 15 for block in error_blocks(result))
    assert result.duration < 12  # one probe takes 3 s, eight would take 24


def test_an_error_shows_the_tests_own_lines_and_the_message(suite_both_ways: RunSuite) -> None:
    result = suite_both_ways(
        """
        def build(sandbox):
            sandbox.exec("echo to see; exit 7", check=True)

        def test_fails(sandbox):
            build(sandbox)
        """
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*build(sandbox)",
            '>*sandbox.exec("echo to see; exit 7", check=True)',
            "E *pytest_sandbox.errors.CommandFailed: `echo to see; exit 7` failed with exit code 7 *",
            "E *stdout:",
            "E *  to see",
            "test_suite.py:*: CommandFailed",
        ]
    )
    (block,) = error_blocks(result)
    assert len(block) <= 30  # the test's source and what its sandbox did included
    assert not any("pytest_sandbox/" in line or "asyncio" in line for line in block)


def test_full_trace_shows_the_frames_of_pytest_too(suite: RunSuite) -> None:
    result = suite(
        """
        def test_fails(sandbox):
            sandbox.exec("exit 7", check=True)
        """,
        "--full-trace",
    )

    result.stdout.fnmatch_lines(["*_pytest/python.py:*"])


def test_junit_files_name_the_class_of_failure(suite_both_ways: RunSuite, pytester: pytest.Pytester) -> None:
    suite_both_ways(
        """
        import pytest

        def test_command(sandbox): sandbox.exec("exit 7", check=True)
        def test_limit(sandbox): sandbox.exec("sleep 60", timeout=0.1)
        def test_file(sandbox): sandbox.read_text("missing")
        def test_passes(sandbox): pass
        def test_asserts(sandbox): assert False

        @pytest.mark.sandbox(image="pytest-sandbox/no-such-image")
        def test_infrastructure(sandbox): pass

        @pytest.mark.sandbox(cpus="many")
        def test_usage(sandbox): pass
        """,
        "--junitxml=report.xml",
    )

    cases = ElementTree.parse(pytester.path / "report.xml").iter("testcase")
    classes = {
        case.get("name"): [p.get("value") for p in case.iter("property") if p.get("name") == "sandbox_failure"]
        for case in cases
    }
    assert classes == {
        "test_command": ["command"],
        "test_limit": ["limit"],
        "test_file": ["command"],
        "test_passes": [],
        "test_asserts": [],
        "test_infrastructure": ["infrastructure"],
        "test_usage": ["usage"],
    }


def test_a_failing_comparison_of_changes_is_explained(suite: RunSuite) -> None:
    result = suite(
        """
        from pytest_sandbox import Changes

        def test_set(sandbox):
            sandbox.write_text("a", "1\\n")
            assert sandbox.changes().added == {"b"}

        def test_whole(sandbox):
            sandbox.write_text("a", "1\\n")
            assert sandbox.changes() == Changes()
        """
    )

    result.stdout.fnmatch_lines(
        [
            "E * assert {'a'} == {'b'}",
            "E * not expected: added a",
            "E * expected, but not so: b",
            "E * --- /dev/null",
            "E * +++ b/a",
            "E * +1",
            "E * assert Changes(added={'a'}) == Changes()",
            "E * not expected: added a",
        ]
    )


@pytest.mark.parametrize("isolation", ["workspace", "container", "none"])
def test_changes_are_by_default_those_of_the_test(suite: RunSuite, isolation: str) -> None:
    result = suite(
        f"""
        import pytest
        from pytest_sandbox import Baseline, Changes

        pytestmark = pytest.mark.sandbox(isolation="{isolation}")

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            return Baseline(files={{"a": "1", "b": "1"}})

        def test_first(sandbox):
            assert sandbox.changes() == Changes()
            sandbox.write_text("c", "2")
            assert sandbox.changes() == Changes(added={{"c"}})

        def test_second(sandbox_factory):
            sandbox = sandbox_factory()
            before = sandbox.changes().added
            sandbox.write_text("d", "2")
            assert sandbox.changes().added == before | {{"d"}}
        """
    )

    result.assert_outcomes(passed=2)
