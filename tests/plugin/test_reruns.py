"""Tests that failed for the infrastructure alone, run again; and the classes of failures in the summary."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from .conftest import RunSuite

pytestmark = pytest.mark.docker

SUITE = """
    import asyncio
    import docker
    import pytest
    from pathlib import Path
    from pytest_sandbox.errors import EngineTimeout

    def attempt(name):
        # How often a test has got here, in whatever process.
        with Path(name).open("a") as file:
            file.write("x")
        return len(Path(name).read_text())

    def lose(sandbox):
        docker.from_env().containers.get(sandbox.name).remove(force=True, v=True)
        sandbox.exec("true")

    @pytest.fixture
    def own():
        with Path("own").open("a") as file:
            file.write("up ")
        yield
        with Path("own").open("a") as file:
            file.write("down ")

    @pytest.fixture(scope="module")
    def flaky():
        if attempt("flaky") == 1:
            raise EngineTimeout("nowhere", "create", 1)
        return "made"

    def test_call(own, sandbox):
        sandbox.write_text("left", "x")
        if attempt("call") < 3:
            lose(sandbox)
        assert [file.path.name for file in sandbox.list_dir()] == ["left"]

    def test_setup_of_wide_scope(flaky, sandbox):
        assert flaky == "made"

    def test_teardown(sandbox, request):
        if attempt("teardown") == 1:
            request.addfinalizer(lambda: lose(sandbox))

    @pytest.mark.asyncio
    async def test_group(async_sandbox):
        if attempt("group") == 1:
            docker.from_env().containers.get(async_sandbox.name).remove(force=True, v=True)
            async with asyncio.TaskGroup() as tasks:
                for _ in range(2):
                    tasks.create_task(async_sandbox.exec("true"))

    def test_never_cured(sandbox):
        attempt("never")
        lose(sandbox)

    def test_command(sandbox):
        attempt("command")
        sandbox.exec("exit 3", check=True)

    def test_limit(sandbox):
        attempt("limit")
        sandbox.exec("sleep 60", timeout=0.1)

    def test_assertion():
        attempt("assertion")
        assert False

    def test_both(sandbox, request):
        attempt("both")
        request.addfinalizer(lambda: lose(sandbox))
        assert False

    def test_shared(module_sandbox):
        attempt("shared")
        lose(module_sandbox)
"""
RUNS = {
    "call": 3,
    "flaky": 2,
    "teardown": 2,
    "group": 2,
    "never": 3,
    "command": 1,
    "limit": 1,
    "assertion": 1,
    "both": 1,
    "shared": 1,
}


def test_only_what_the_infrastructure_broke_is_run_again(suite_both_ways: RunSuite, pytester: pytest.Pytester) -> None:
    result = suite_both_ways(SUITE, "--sandbox-rerun-infrastructure=2", "--junitxml=report.xml", "-rf")

    assert {name: len((pytester.path / name).read_text()) for name in RUNS} == RUNS
    assert (pytester.path / "own").read_text() == "up down " * 3
    result.assert_outcomes(passed=4, failed=6, errors=1)
    result.stdout.fnmatch_lines(
        [
            "sandbox: of 7 failures 1 command, 1 limit, 3 infrastructure",
            "sandbox: 7 times a test was run again, as the infrastructure had failed",
            "  test_suite.py::test_*: pytest_sandbox.errors.*",
            "  and 2 more",
            "*6 failed, 4 passed, 1 error, 7 rerun in *",
        ]
    )
    cases = list(ElementTree.parse(pytester.path / "report.xml").iter("testcase"))
    names = [case.get("name") for case in cases]
    properties = {
        case.get("name"): {str(each.get("name")): each.get("value") for each in case.iter("property")} for case in cases
    }
    assert {name: names.count(name) for name in names} == dict.fromkeys(names, 1) | {"test_both": 2}  # as without us
    assert properties["test_call"] == {"sandbox_reruns": "2"}
    assert properties["test_command"]["sandbox_failure"] == "command"
    assert "sandbox_reruns" not in properties["test_command"]
    assert properties["test_never_cured"]["sandbox_reruns"] == "2"


def test_without_the_option_nothing_is_run_again(suite: RunSuite, pytester: pytest.Pytester) -> None:
    result = suite(SUITE, "-k", "test_setup")

    result.assert_outcomes(errors=1)
    assert (pytester.path / "flaky").read_text() == "x"
    result.stdout.fnmatch_lines(["sandbox: of 1 failure 1 infrastructure"])


def test_an_engine_that_is_missing_is_asked_again_as_often_and_no_more(
    suite: RunSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")

    result = suite(
        """
        import pytest

        @pytest.fixture(scope="session", autouse=True)
        def asked(sandbox_pool):
            find, count = sandbox_pool._find_engine, []
            sandbox_pool._find_engine = lambda: count.append(1) or find()
            yield
            print(f"asked {len(count)} times")

        @pytest.mark.parametrize("turn", range(4))
        def test_needs_it(sandbox, turn): pass
        """,
        "--sandbox-rerun-infrastructure=2",
        "-s",
    )

    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(["*asked 2 times*", "*8 rerun*"])  # once before, for the header
