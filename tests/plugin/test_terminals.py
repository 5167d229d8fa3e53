"""The fixture `terminal`."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import RunSuite

pytestmark = pytest.mark.docker


def test_the_fixture_is_a_shell_on_the_tests_sandbox_and_ends_with_the_test(suite: RunSuite) -> None:
    result = suite(
        """
        import re

        def test_it_runs_there(terminal, sandbox):
            terminal.sendline("touch made; echo my pid: $$.")
            match = terminal.expect(re.compile(r"my pid: (\\d+)\\.")).match
            assert sandbox.exists("made")
            assert int(match[1]) == terminal.pid

        def test_it_is_gone(sandbox):
            assert sandbox.sweep() == 0
        """
    )

    result.assert_outcomes(passed=2)


def test_a_failing_expectation_shows_the_screen_and_the_users_line(suite: RunSuite) -> None:
    result = suite(
        """
        def test_in_vain(terminal):
            terminal.sendline("echo what is there")
            terminal.expect("what is not", timeout=0.3)
        """
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">*terminal.expect(*",
            "E *TerminalTimeout: terminal `shell` did not show 'what is not' within 0.3 s",
            "E *24×80*",
            "E *what is there*",
            "E *stream*",
        ]
    )
