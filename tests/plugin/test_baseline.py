"""A module's baseline: made once, and what each test begins from."""

from __future__ import annotations

import pytest

from .conftest import RunSuite

pytestmark = pytest.mark.docker

BASELINE = """
        import pytest
        from pytest_sandbox import Baseline

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            return Baseline(
                files={"text": "as it was", "deep/er": b"\\x00\\xff", "run.sh": ("#!/bin/sh\\necho ran\\n", 0o755)},
                commands=["mkdir empty", ["ln", "-s", "nowhere", "link"], "touch old && chmod 4711 old"],
            )

        def state(sandbox):
            return {str(f.path): (f.kind, f.mode, f.size, f.uid, f.mtime_ns, f.target) for f in sandbox.walk()}

        BEGINNING = {}
"""

CHANGES = {
    "modified": "echo other >text",
    "modified in place with the old time": "T=$(stat -c %y text); printf 'AS it was' >text; touch -d \"${T%.*}\" text",
    "added": "mkdir new && echo x >new/file",
    "removed": "rm -r deep run.sh link empty",
    "mode": "chmod 600 old && chmod 700 .",
    "owner": "chown 1000:1000 text",
    "kind": "rm text && mkdir text && rm -r deep && ln -s /etc deep",
    "link": "rm link && ln -s elsewhere link",
    "everything": "rm -rf ./* && mkdir a && touch a/b",
    "busy": "sleep 1000 & cd deep && sleep 1000 & exec 3>text; sleep 1000 &",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_next_test_finds_the_baseline_again(suite: RunSuite, change: str) -> None:
    result = suite(
        BASELINE
        + f"""
        @pytest.mark.parametrize("turn", [1, 2, 3])
        def test_change(sandbox, turn):
            assert state(sandbox) == BEGINNING.setdefault("first", state(sandbox))
            assert sandbox.read_text("text") == "as it was"
            assert sandbox.exec(["./run.sh"], check=True).stdout == b"ran\\n"
            assert sandbox.exec("pidof sleep").exit_code != 0
            sandbox.exec({change!r}, check=True)
        """
    )

    result.assert_outcomes(passed=3)


def test_a_baseline_is_made_once_per_module_and_settings(suite_both_ways: RunSuite, pytester: pytest.Pytester) -> None:
    log = pytester.path / "made"
    pytester.makeconftest(
        f"""
        import pytest

        @pytest.fixture(scope="module")
        def sandbox_baseline(request):
            def make(sandbox):
                with open({str(log)!r}, "a") as made:
                    made.write(f"{{request.node.name}} {{sandbox.settings.user or 'root'}}\\n")
                sandbox.exec("whoami >who", check=True)
            return make
        """
    )
    pytester.makepyfile(test_other="def test_a(sandbox): assert sandbox.read_text('who') == 'root\\n'")

    result = suite_both_ways(
        """
        import pytest

        def test_a(sandbox): assert sandbox.read_text("who") == "root\\n"
        def test_b(sandbox): assert sandbox.read_text("who") == "root\\n"

        @pytest.mark.sandbox(timeout=300)
        def test_c(sandbox): pass

        def test_d(module_sandbox): assert module_sandbox.read_text("who") == "root\\n"

        class TestE:
            def test_e(self, class_sandbox): assert class_sandbox.read_text("who") == "root\\n"
        """
    )

    result.assert_outcomes(passed=6)
    assert sorted(log.read_text().splitlines()) == ["test_other.py root", "test_suite.py root"]


def test_local_trees_are_copied_with_modes_and_links(suite: RunSuite, pytester: pytest.Pytester) -> None:
    tree = pytester.mkdir("tree")
    (tree / "inner").mkdir()
    (tree / "inner" / "script").write_text("#!/bin/sh\necho hello\n")
    (tree / "inner" / "script").chmod(0o755)
    (tree / "link").symlink_to("inner/script")

    result = suite(
        f"""
        import pytest
        from pathlib import Path
        from pytest_sandbox import Baseline

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            return Baseline(trees={{"project": Path({str(tree)!r})}}, commands=["project/link >said"])

        def test_tree(sandbox):
            assert sandbox.read_text("said") == "hello\\n"
            assert sandbox.lstat("project/link").target == "inner/script"
        """
    )

    result.assert_outcomes(passed=1)


def test_a_failing_command_fails_each_test_alike_and_runs_once(
    suite_both_ways: RunSuite, pytester: pytest.Pytester
) -> None:
    log = pytester.path / "made"

    result = suite_both_ways(
        f"""
        import pytest
        from pytest_sandbox import Baseline

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            baseline = Baseline(commands=["echo one; echo two >&2; exit 3"])
            def make(sandbox):
                with open({str(log)!r}, "a") as made:
                    made.write("made\\n")
                baseline(sandbox)
            return make

        @pytest.mark.parametrize("turn", [1, 2, 3])
        def test_needs_it(sandbox, turn): pass

        def test_needs_it_too(module_sandbox): pass
        """
    )

    result.assert_outcomes(errors=4)
    message = "  pytest_sandbox.errors.CommandFailed: `echo one; echo two >&2; exit 3` failed"
    assert result.stdout.str().count(message) == 4
    result.stdout.fnmatch_lines(["E *  one", "E *  two", "E *raised by the fixture sandbox_baseline, *"])
    assert log.read_text() == "made\n"


def test_any_error_of_a_baseline_function_is_shown_with_its_line(suite: RunSuite) -> None:
    result = suite(
        """
        import pytest

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            def make(sandbox):
                assert sandbox.exec("echo 1").stdout == b"2"
            return make

        def test_one(sandbox): pass
        def test_two(sandbox): pass
        """
    )

    result.assert_outcomes(errors=2)
    assert result.stdout.str().count('assert sandbox.exec("echo 1").stdout == b"2"') == 2
    assert "pytest_sandbox/baseline.py" not in result.stdout.str()


def test_another_baseline_takes_the_place_of_the_last_modules(suite: RunSuite, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_a="""
        import pytest
        from pytest_sandbox import Baseline

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            return Baseline(files={"a": "a"})

        def test_a(sandbox):
            assert [str(f.path) for f in sandbox.walk()] == ["a"]
        """
    )

    result = suite(
        """
        def test_none(sandbox):
            assert list(sandbox.walk()) == []
        """
    )

    result.assert_outcomes(passed=2)
