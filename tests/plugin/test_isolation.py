"""What a test finds in its sandbox, by fixture and isolation."""

from __future__ import annotations

import pytest

from .conftest import RunSuite

pytestmark = pytest.mark.docker

WRITES_THEN_LOOKS = """
    import pytest

    @pytest.mark.parametrize("turn", [1, 2, 3])
    def test_finds_nothing(sandbox, turn):
        assert sandbox.list_dir() == []
        assert sandbox.list_dir("/tmp") == []
        sandbox.write_text("left", "x")
        sandbox.write_text("/tmp/left", "x")
"""


def test_each_test_finds_an_empty_workspace_and_tmp(suite_both_ways: RunSuite) -> None:
    suite_both_ways(WRITES_THEN_LOOKS).assert_outcomes(passed=3)


def test_isolation_container_gives_each_test_a_new_container(suite_both_ways: RunSuite) -> None:
    result = suite_both_ways(
        """
        import pytest

        names = []

        @pytest.mark.parametrize("turn", [1, 2])
        def test_outside_the_workspace(sandbox, turn):
            assert not sandbox.exists("/etc/left")
            assert sandbox.name not in names
            sandbox.write_text("/etc/left", "x")
            names.append(sandbox.name)
        """,
        "--sandbox-isolation=container",
    )

    result.assert_outcomes(passed=2)


def test_a_container_serves_the_next_test_too(suite_both_ways: RunSuite) -> None:
    result = suite_both_ways(
        """
        names = []

        def test_one(sandbox):
            names.append(sandbox.name)

        def test_two(sandbox):
            assert names == [sandbox.name]
        """
    )

    result.assert_outcomes(passed=2)


def test_isolation_none_restores_nothing(suite_both_ways: RunSuite) -> None:
    result = suite_both_ways(
        """
        import pytest

        pytestmark = pytest.mark.sandbox(isolation="none")

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            return lambda sandbox: sandbox.write_text("count", "0")

        @pytest.mark.parametrize("turn", [1, 2, 3])
        def test_counts(sandbox, turn):
            count = int(sandbox.read_text("count")) + 1
            sandbox.write_text("count", str(count))
            assert count == turn
        """
    )

    result.assert_outcomes(passed=3)


def test_processes_of_a_test_do_not_live_on(suite_both_ways: RunSuite) -> None:
    result = suite_both_ways(
        """
        def test_leaves_processes(sandbox):
            sandbox.exec("sleep 1000 & setsid sleep 1000 & (setsid sleep 1000 &) ; trap '' TERM")
            assert sandbox.exec("pidof sleep").stdout.text.split() != []

        def test_finds_none(sandbox):
            assert sandbox.exec("pidof sleep").stdout.text.split() == []
        """
    )

    result.assert_outcomes(passed=2)


def test_module_sandbox_keeps_its_state_for_the_module_only(suite_both_ways: RunSuite) -> None:
    source = """
        def test_writes(module_sandbox):
            assert not module_sandbox.exists("kept")
            module_sandbox.write_text("kept", "x")

        def test_is_apart_from_the_tests_own(module_sandbox, sandbox):
            assert sandbox.name != module_sandbox.name
            assert not sandbox.exists("kept")

        def test_reads(module_sandbox):
            assert module_sandbox.read_text("kept") == "x"
    """

    result = suite_both_ways(source)

    result.assert_outcomes(passed=3)


def test_the_wider_scopes_keep_state_for_their_scope(suite: RunSuite) -> None:
    result = suite(
        """
        import pytest

        class TestFirst:
            def test_writes(self, class_sandbox):
                class_sandbox.write_text("kept", "x")

            def test_reads(self, class_sandbox):
                assert class_sandbox.read_text("kept") == "x"

        class TestSecond:
            def test_begins_anew(self, class_sandbox):
                assert not class_sandbox.exists("kept")

        @pytest.mark.parametrize("fixture", ["package_sandbox", "session_sandbox"])
        @pytest.mark.parametrize("turn", [1, 2])
        def test_counts(request, fixture, turn):
            sandbox = request.getfixturevalue(fixture)
            sandbox.write_text("count", "x", append=True)
            assert len(sandbox.read_text("count")) == turn
        """
    )

    result.assert_outcomes(passed=7)


def test_the_factory_makes_independent_sandboxes_that_end_with_the_test(suite_both_ways: RunSuite) -> None:
    result = suite_both_ways(
        """
        import pytest
        from pytest_sandbox import Baseline

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            return Baseline(files={"base": "x"})

        def test_three(sandbox, sandbox_factory):
            small = sandbox_factory(memory="64m", environment={"SIZE": "small"})
            other = sandbox_factory()
            small.write_text("mine", "x")
            assert len({sandbox.name, small.name, other.name}) == 3
            assert [str(entry.path) for entry in other.list_dir()] == ["base"]
            assert small.settings.memory == 64 * 1024 * 1024
            assert small.exec("echo $SIZE").stdout == b"small\\n"
            assert small.read_text("base") == "x"

        def test_wrong_keyword(sandbox_factory):
            with pytest.raises(ValueError, match="sandbox_factory: 'memmory' is not valid; expected `memory`, or"):
                sandbox_factory(memmory=1)
        """
    )

    result.assert_outcomes(passed=2)


def test_overriding_one_node_of_the_fixture_graph_changes_what_follows(suite: RunSuite) -> None:
    result = suite(
        """
        import pytest
        from dataclasses import replace

        @pytest.fixture(scope="session")
        def sandbox_settings(sandbox_settings):
            return replace(sandbox_settings, environment={"FROM": "conftest"}, timeout=7)

        def test_settings(sandbox):
            assert sandbox.exec("echo $FROM").stdout == b"conftest\\n"
            assert sandbox.settings.timeout == 7

        @pytest.mark.sandbox(timeout=8)
        def test_marker_on_top(sandbox):
            assert sandbox.exec("echo $FROM").stdout == b"conftest\\n"
            assert sandbox.settings.timeout == 8

        class TestFactory:
            @pytest.fixture
            def sandbox_factory(self, sandbox_factory):
                def make(**overrides):
                    sandbox = sandbox_factory(**overrides)
                    sandbox.write_text("made", "x")
                    return sandbox
                return make

            def test_factory(self, sandbox):
                assert sandbox.exists("made")
        """
    )

    result.assert_outcomes(passed=3)


def test_unittest_classes_can_ask_for_a_sandbox(suite: RunSuite) -> None:
    result = suite(
        """
        import unittest
        import pytest

        class TestCase(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def _given(self, sandbox):
                self.sandbox = sandbox

            def test_exec(self):
                self.assertEqual(self.sandbox.exec(["true"]).exit_code, 0)
        """
    )

    result.assert_outcomes(passed=1)


def test_forks_and_sandboxes_from_a_snapshot_end_with_the_test(suite_both_ways: RunSuite) -> None:
    result = suite_both_ways(
        """
        def test_fork(sandbox):
            sandbox.write_text("a", "1")
            fork = sandbox.fork()
            fork.write_text("a", "2")

            assert sandbox.read_text("a") == "1"
            assert fork.changes().modified == {"a"}

        def test_from(sandbox, sandbox_factory):
            assert not sandbox.exists("a")
            sandbox.write_text("a", "1")
            prepared = sandbox.snapshot()
            left, right = sandbox_factory(from_=prepared), sandbox_factory(from_=prepared, memory="128m")
            left.write_text("b", "")

            assert right.read_text("a") == "1"
            assert left.changes().added == {"b"}

        def test_nothing_is_left(sandbox, sandbox_factory):
            assert sandbox.list_dir() == sandbox_factory().list_dir() == []
        """
    )

    result.assert_outcomes(passed=3)


# --- outside of the workspace ----------------------------------------------------------------------------------------

CHANGES_OUTSIDE = """
    import pytest

    names = []

    @pytest.mark.parametrize("turn", [1, 2, 3])
    def test_changes(sandbox, turn):
        assert not sandbox.exists("/etc/left")
        assert sandbox.name not in names
        names.append(sandbox.name)
        sandbox.exec("touch /etc/left1 /etc/left2 /etc/left3 /etc/left4; echo x >/etc/left", check=True)

    def test_changes_nothing(sandbox):
        assert sandbox.name not in names
"""


def test_a_change_outside_of_the_workspace_is_not_found_by_the_next_test_and_told(suite_both_ways: RunSuite) -> None:
    result = suite_both_ways(CHANGES_OUTSIDE)

    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "sandbox: 3 times a test changed something outside of the workspace, and its container was replaced",
            "  test_suite.py::test_changes[[]1]: /etc/left1, /etc/left2, /etc/left3 and 2 more",
            "  test_suite.py::test_changes[[]2]: *",
            "  test_suite.py::test_changes[[]3]: *",
            "  (do it in the image or in sandbox_baseline, or see `tolerated` and `isolation` in the settings)",
        ]
    )
    result.stdout.no_fnmatch_line("*test_changes_nothing*")


def test_nothing_is_told_of_tests_that_change_nothing_outside(suite_both_ways: RunSuite) -> None:
    result = suite_both_ways(WRITES_THEN_LOOKS)

    result.assert_outcomes(passed=3)
    result.stdout.no_fnmatch_line("sandbox: *outside*")


def test_what_changed_outside_is_in_junit_files(suite: RunSuite, pytester: pytest.Pytester) -> None:
    suite(CHANGES_OUTSIDE, "--junit-xml=report.xml", "--sandbox-pool=0")

    assert (pytester.path / "report.xml").read_text().count('<property name="sandbox_outside" value="/etc/left1, ') == 3


@pytest.mark.parametrize("isolation", ["workspace", "container"])
def test_a_baseline_that_reaches_outside_is_whole_for_each_test(suite_both_ways: RunSuite, isolation: str) -> None:
    result = suite_both_ways(
        """
        import pytest
        from pytest_sandbox import Baseline

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            return Baseline(commands=["mkdir -p /root/deep; echo x >/root/deep/config; echo x >base; mkdir made"])

        @pytest.mark.parametrize("turn", [1, 2, 3, 4])
        def test_finds_it(sandbox, turn):
            assert sandbox.read_text("/root/deep/config") == sandbox.read_text("base") == "x\\n"
            sandbox.exec("echo y >>base; rmdir made", check=True)
            if turn % 2:
                sandbox.exec("echo y >>/root/deep/config", check=True)
        """,
        f"--sandbox-isolation={isolation}",
    )

    result.assert_outcomes(passed=4)


def test_a_shared_sandbox_may_be_changed_outside_without_ado(suite_both_ways: RunSuite) -> None:
    result = suite_both_ways(
        """
        def test_changes(module_sandbox):
            module_sandbox.exec("echo x >/etc/left", check=True)

        def test_finds_it(module_sandbox):
            assert module_sandbox.exists("/etc/left")

        def test_has_its_own(sandbox):
            assert not sandbox.exists("/etc/left")
        """
    )

    result.assert_outcomes(passed=3)
    result.stdout.no_fnmatch_line("sandbox: *outside*")
