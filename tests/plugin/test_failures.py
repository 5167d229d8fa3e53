"""What the report of a failed test tells of its sandboxes."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from .conftest import RunSuite

pytestmark = pytest.mark.docker

SUITE = """
    import docker
    import pytest

    def test_fails(sandbox, sandbox_factory):
        sandbox.write_text("notes", "one\\n")
        script = "printf '\\\\033[31mred\\\\033[0m \\\\033[2J '; echo $MY_TOKEN; seq 9 >&2; exit 3"
        sandbox.exec(script, env={"MY_TOKEN": "abc" * 5})
        sandbox_factory(memory="64m").exec(["true"])
        assert False

    def test_passes(sandbox):
        sandbox.exec("exit 4")

    def test_does_nothing(sandbox):
        assert False

    def test_loses_it(sandbox):
        sandbox.write_text("notes", "two\\n")
        docker.from_env().containers.get(sandbox.name).remove(force=True, v=True)
        sandbox.exec("sleep 1000")

    def test_can_not_be_looked_at(sandbox):
        sandbox.write_text("deep", "x")
        sandbox.remove("deep")
        sandbox.start("sleep 1000").send_signal("STOP")
        sandbox.snapshot = None
        sandbox._core.changes = None
        assert False
"""
COMMANDS = [
    "*- sandbox commands -*",
    "pytest-sandbox-*-*:",
    "  write_text path=notes text=4 characters: 0.?? s",
    "  exec `*` env=*: exit code 3, 0.?? s",
    "    stdout:",
    r"      red \x1b[[]2J ***",
    "    stderr, the end of 18 bytes:",
    "      5",
    "      6",
]
CHANGES = ["*- sandbox workspace changes -*", "pytest-sandbox-*-*:", "  added notes", "*", "*", "*", "  +one"]


def test_it_tells_what_the_sandboxes_did(suite_both_ways: RunSuite) -> None:
    result = suite_both_ways(SUITE, "--junitxml=report.xml", "-k", "not looked")

    result.assert_outcomes(failed=3, passed=1)
    result.stdout.fnmatch_lines([*COMMANDS, *["*"] * 3, "pytest-sandbox-*-*:", "  exec `true`: exit code 0, 0.?? s"])
    result.stdout.fnmatch_lines(CHANGES)
    result.stdout.fnmatch_lines(["  exec `sleep 1000`: SandboxLost: sandbox pytest-sandbox-*"])
    shown = result.stdout.str()
    assert "exit code 4" not in shown
    assert "abcabc" not in shown
    assert shown.count("sandbox commands -") == 2
    assert shown.count("workspace changes -") == 1
    told = {
        case.get("name"): {str(p.get("name")): str(p.get("value")) for p in case.iter("property")}
        for case in ElementTree.parse("report.xml").iter("testcase")
    }
    assert sorted(told["test_fails"]) == ["sandbox_commands", "sandbox_workspace_changes"]
    assert "seq 9" in told["test_fails"]["sandbox_commands"]
    assert "abcabc" not in told["test_fails"]["sandbox_commands"]
    assert told["test_passes"] == told["test_does_nothing"] == {}
    assert sorted(told["test_loses_it"]) == ["sandbox_commands", "sandbox_failure"]


def test_what_goes_wrong_meanwhile_does_not_take_the_failures_place(suite: RunSuite) -> None:
    result = suite(SUITE, "-k", "looked")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert False", "what the sandboxes did can't be told: TypeError*"])


def test_it_is_left_out_on_request(suite: RunSuite) -> None:
    result = suite(SUITE, "-k", "test_fails", "--sandbox-report=never")

    result.assert_outcomes(failed=1)
    assert "sandbox commands" not in result.stdout.str()


def test_a_service_is_told_with_its_log(suite: RunSuite, pytester: pytest.Pytester) -> None:
    image = pytester.mkdir("image")
    (image / "Dockerfile").write_text('FROM pytest-sandbox/busybox\nCMD ["sh", "-c", "seq 30; exit 2"]\n')

    result = suite(
        """
        import pytest

        @pytest.mark.sandbox(image="./image", service=True)
        def test_fails(sandbox):
            sandbox.service.wait()
            assert False
        """
    )

    result.stdout.fnmatch_lines(
        [
            "*- sandbox service log -*",
            "pytest-sandbox-*-*: `sh -c seq 30; exit 2` has ended with exit code 2 after 0.?? s; it wrote 81 bytes, *:",
            "  11",
            *[f"  {number}" for number in range(12, 31)],
        ]
    )
    assert "\\n  10\\n" not in result.stdout.str()
