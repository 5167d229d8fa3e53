"""Settings as a user gives them: which source wins, and what is said of values that are not taken."""

from __future__ import annotations

import pytest

from .conftest import RunSuite

SHOWS_TIMEOUT = """
    import pytest

    def test_timeout(sandbox_settings):
        assert sandbox_settings.timeout == {expected}
"""


def test_the_option_wins_over_the_environment(
    suite: RunSuite, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX_TIMEOUT", "2")
    pytester.makeini("[pytest]\nsandbox_timeout = 3")

    suite(SHOWS_TIMEOUT.format(expected=1.5), "--sandbox-timeout=1.5").assert_outcomes(passed=1)


def test_the_environment_wins_over_the_ini_file(
    suite_both_ways: RunSuite, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX_TIMEOUT", "2")
    pytester.makeini("[pytest]\nsandbox_timeout = 3")

    suite_both_ways(SHOWS_TIMEOUT.format(expected=2)).assert_outcomes(passed=1)


def test_the_ini_file_wins_over_the_default(suite_both_ways: RunSuite, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nsandbox_timeout = none")

    suite_both_ways(SHOWS_TIMEOUT.format(expected=None)).assert_outcomes(passed=1)


def test_an_empty_variable_is_not_set(suite: RunSuite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_TIMEOUT", "")

    suite(SHOWS_TIMEOUT.format(expected=300)).assert_outcomes(passed=1)


@pytest.mark.docker
def test_lines_come_from_the_ini_file(suite: RunSuite, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nsandbox_environment =\n    GREETING=hello = world\n    EMPTY=")

    result = suite(
        """
        def test_environment(sandbox):
            assert sandbox.exec('echo "$GREETING${EMPTY-unset}"').stdout == b"hello = world\\n"
        """
    )

    result.assert_outcomes(passed=1)


@pytest.mark.docker
def test_the_closest_marker_wins_keyword_by_keyword(suite_both_ways: RunSuite) -> None:
    result = suite_both_ways(
        """
        import pytest

        pytestmark = pytest.mark.sandbox(memory="64m", timeout=20)

        def test_module(sandbox, module_sandbox):
            for each in (sandbox, module_sandbox):
                assert (each.settings.memory, each.settings.timeout) == (64 * 1024**2, 20)

        @pytest.mark.sandbox(timeout=10)
        class TestClass:
            @pytest.mark.sandbox(environment={"FROM": "marker"}, memory=128 * 1024**2)
            def test_function(self, sandbox, class_sandbox, module_sandbox):
                assert (sandbox.settings.memory, sandbox.settings.timeout) == (128 * 1024**2, 10)
                assert (class_sandbox.settings.memory, class_sandbox.settings.timeout) == (64 * 1024**2, 10)
                assert (module_sandbox.settings.memory, module_sandbox.settings.timeout) == (64 * 1024**2, 20)
                assert sandbox.exec("echo $FROM").stdout == b"marker\\n"
        """,
        "--sandbox-timeout=30",
        "--strict-markers",
    )

    result.assert_outcomes(passed=2)


@pytest.mark.docker
@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("memmory=1", "@pytest.mark.sandbox: 'memmory' is not valid; expected `memory`, or another keyword out of"),
        ("memory='lots'", "@pytest.mark.sandbox(memory=…): 'lots' is not valid; expected bytes, or a number with `k`"),
        ("isolation='total'", "@pytest.mark.sandbox(isolation=…): 'total' is not valid; expected `workspace`, `cont"),
        ("'busybox'", "@pytest.mark.sandbox: 'busybox' is not valid; expected keywords only: image, pull, "),
    ],
)
def test_a_wrong_marker_fails_its_own_test_and_names_itself(suite: RunSuite, marker: str, message: str) -> None:
    result = suite(
        f"""
        import pytest

        @pytest.mark.sandbox({marker})
        def test_wrong(sandbox): pass

        def test_right(sandbox): pass
        """
    )

    result.assert_outcomes(errors=1, passed=1)
    assert f"E   pytest_sandbox.errors.InvalidSetting: {message}" in result.stdout.str()
    assert "pytest_sandbox/" not in result.stdout.str()


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["plain", "xdist"])
def test_a_wrong_option_is_a_usage_error(suite: RunSuite, workers: tuple[str, ...]) -> None:
    result = suite("def test(): pass", "--sandbox-pull=sometimes", *workers)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    message = "ERROR: --sandbox-pull: 'sometimes' is not valid; expected `missing`, `always` or `never`"
    result.stderr.fnmatch_lines([message])


def test_a_wrong_variable_is_a_usage_error(suite: RunSuite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_CPUS", "many")

    result = suite("def test(): pass")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: SANDBOX_CPUS: 'many' is not valid; expected a number above 0"])


def test_a_wrong_ini_value_is_a_usage_error(suite: RunSuite, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nsandbox_workspace = here")

    result = suite("def test(): pass")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: sandbox_workspace (tox.ini): 'here' is not valid; expected an absolute *"])


def test_a_wrong_ini_value_given_on_the_command_line_is_a_usage_error(suite: RunSuite) -> None:
    result = suite("def test(): pass", "-o", "sandbox_pids=0")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: sandbox_pids (-o): '0' is not valid; expected a whole number above 0"])


def test_help_lists_every_option(suite: RunSuite) -> None:
    result = suite("", "--help")

    result.stdout.fnmatch_lines(["*--sandbox-image=IMAGE*", "*--sandbox-memory=MEMORY*"])


@pytest.mark.docker
def test_the_image_of_a_marker_is_used(suite: RunSuite) -> None:
    result = suite(
        """
        import pytest

        @pytest.mark.sandbox(image="pytest-sandbox/no-such-image")
        @pytest.mark.parametrize("turn", [1, 2])
        def test_missing(sandbox, turn): pass

        def test_right(sandbox): pass
        """
    )

    result.assert_outcomes(errors=2, passed=1)
    message = "E   pytest_sandbox.errors.ImageNotAvailable: image pytest-sandbox/no-such-image is not available"
    assert result.stdout.str().count(message) == 2
