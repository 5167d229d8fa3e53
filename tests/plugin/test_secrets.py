"""Secrets in what a run leaves behind: its reports, junit files, logs."""

from __future__ import annotations

import pytest

from .conftest import RunSuite

VALUE = "s3cr3t-value"

SHOWING = f"""
    import logging

    import pytest
    from pytest_sandbox import Secret, SandboxSettings

    @pytest.fixture
    def token():
        return "{VALUE[:6]}" + "{VALUE[6:]}"

    @pytest.fixture
    def settings(token):
        return SandboxSettings(environment={{"API_TOKEN": token, "OTHER": Secret("another" + " one")}})

    def test_settings(settings):
        assert settings == SandboxSettings()

    def test_values(settings, token):
        assert dict(settings.environment) == {{"API_TOKEN": "none"}}

    def test_long_text(settings, token):
        assert "x" * 300 + token == "y" * 300

    def test_messages(settings, token):
        print("printed", token)
        logging.getLogger().warning("logged %s", token)
        raise LookupError(f"raised with {{token}}")

    def test_passes(settings, token):
        print("printed", token)
"""


@pytest.mark.parametrize("arguments", [(), ("-vv",), ("-l", "--tb=long"), ("-n2",)], ids=" ".join)
def test_no_report_shows_one(suite: RunSuite, pytester: pytest.Pytester, arguments: tuple[str, ...]) -> None:
    result = suite(SHOWING, "-rA", "--junitxml=junit.xml", "-o", "junit_logging=all", *arguments)

    result.assert_outcomes(failed=4, passed=1)
    shown = result.stdout.str() + (pytester.path / "junit.xml").read_text()
    assert "printed ***" in shown
    assert "raised with ***" in shown
    for secret in (VALUE, VALUE[:6], "another one"):
        assert secret not in shown.replace('"s3cr3t" + "-value"', "")  # the suite's own source


def test_a_module_that_fails_with_one_does_not_show_it(suite: RunSuite) -> None:
    result = suite(
        """
        from pytest_sandbox import Secret

        raise LookupError(Secret("s3cr3t" + "-value").reveal())
        """
    )

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E*LookupError: [*][*][*]"])


def test_a_setting_that_is_wrong_is_told_without_values(suite: RunSuite, pytester: pytest.Pytester) -> None:
    pytester.makeini(f"[pytest]\nsandbox_environment =\n    API_TOKEN={VALUE}\n    OTHER {VALUE}\n")

    result = suite("def test_nothing(): pass")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "sandbox_environment (tox.ini): ['API_TOKEN=***', '***'] is not valid; expected `NAME=value`" in str(
        result.stderr
    )
    assert VALUE not in result.stderr.str()


@pytest.mark.docker
def test_in_a_sandbox_only_whom_it_was_given_to_sees_it(suite: RunSuite, pytester: pytest.Pytester) -> None:
    result = suite(
        """
        import logging

        import pytest
        from pytest_sandbox import Baseline, File, Secret

        pytestmark = pytest.mark.sandbox(
            users=["ann", "bob"], user="ann", environment={"GIVEN": Secret("s3cr3t" + "-value")}
        )

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            return Baseline(files={"netrc": File(Secret("password of a file"), mode=0o600, owner="ann")})

        def test_the_command_has_it(sandbox):
            assert sandbox.exec("printf %s $GIVEN").stdout == b"s3cr3t" + b"-value"
            assert sandbox.read_text("netrc") == "password of a file"

        def test_others_do_not(sandbox):
            with sandbox.start("read line") as process:
                look = "for file in /proc/[0-9]*/cmdline; do tr '\\\\0' ' ' < $file; done"
                seen = sandbox.exec(look, user="bob", replace_env=True).stdout.text
                assert "read line" in seen
                assert "s3cr3t" not in seen
                for file in (f"/proc/{process.pid}/environ", "netrc"):
                    denied = sandbox.exec(["cat", file], user="bob", replace_env=True)
                    assert "denied" in denied.stderr.text

        def test_the_state_does_not(sandbox):
            state = sandbox.state()
            assert state.hidden == ("GIVEN",)
            assert "s3cr3t" not in state.to_json() + repr(state)

        def test_the_report_does_not(sandbox):
            sandbox.exec("echo $GIVEN; cat netrc >&2; exit 3", check=True)
        """,
        "--sandbox-events=events.jsonl",
        "--log-file=log",
        "--log-file-level=DEBUG",
    )

    result.assert_outcomes(passed=3, failed=1)
    shown = result.stdout.str()
    result.stdout.fnmatch_lines(["*failed with exit code 3*", "*stdout:", "*  [*][*][*]", "*stderr:", "*  [*][*][*]"])
    left = (pytester.path / "events.jsonl").read_text() + (pytester.path / "log").read_text()
    assert '"stdout": "***"' in left
    assert "s3cr3t-value" not in shown + left
    assert "password of a file" not in shown + left
