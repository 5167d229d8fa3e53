"""A module's baseline: made once, and what each test begins from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

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


# --- kept for later runs ----------------------------------------------------------------------------------------------

KEPT = """
        import pytest
        from pathlib import Path
        from pytest_sandbox import Baseline

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            return Baseline(
                files={{"text": "as it was"}},
                trees={{"tree": Path({tree!r})}},
                commands=["cat /proc/sys/kernel/random/uuid >made"],
            )

        @pytest.mark.parametrize("turn", range(4))
        def test_it(sandbox, turn):
            assert sandbox.read_text("text") == "as it was"
            with open({log!r}, "a") as log:
                log.write(sandbox.read_text("made"))
            sandbox.exec("rm -rf ./*", check=True)
"""


class Log:
    """What a suite's sandboxes found that the baseline made: one random word for each time it was made."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def distinct(self) -> int:
        return len(set(self.path.read_text().split()))


@pytest.fixture
def log(pytester: pytest.Pytester) -> Log:
    return Log(pytester.path / "log")


@pytest.fixture
def kept(pytester: pytest.Pytester, log: Log) -> str:
    """A suite whose baseline is kept."""
    tree = pytester.mkdir("tree")
    (tree / "file").write_text("content")
    return KEPT.format(tree=str(tree), log=str(log.path))


def test_workers_and_runs_share_what_one_has_made(suite: RunSuite, kept: str, log: Log) -> None:
    suite(kept, "-n2").assert_outcomes(passed=4)
    suite(kept, "-n2").assert_outcomes(passed=4)
    suite(kept).assert_outcomes(passed=4)

    assert log.distinct() == 1


def test_refresh_makes_it_anew_once_for_all_workers(suite: RunSuite, kept: str, log: Log) -> None:
    suite(kept).assert_outcomes(passed=4)
    suite(kept, "-n2", "--sandbox-refresh").assert_outcomes(passed=4)
    suite(kept).assert_outcomes(passed=4)

    assert log.distinct() == 2


def test_nothing_is_kept_without_a_store(suite: RunSuite, kept: str, log: Log) -> None:
    suite(kept, "--sandbox-store=none").assert_outcomes(passed=4)
    suite(kept, "--sandbox-store=none").assert_outcomes(passed=4)

    assert log.distinct() == 2


def test_it_is_made_anew_when_something_that_goes_into_it_changes(
    suite: RunSuite, kept: str, log: Log, pytester: pytest.Pytester
) -> None:
    suite(kept).assert_outcomes(passed=4)

    (pytester.path / "tree" / "file").write_text("another")
    suite(kept).assert_outcomes(passed=4)
    (pytester.path / "tree" / "file").chmod(0o700)
    suite(kept).assert_outcomes(passed=4)
    suite(kept.replace("cat /proc", "cat  /proc")).assert_outcomes(passed=4)
    suite(kept, "--sandbox-user=1000").assert_outcomes(passed=4)
    assert log.distinct() == 5

    (pytester.path / "tree" / "file").touch()  # as each checkout does
    suite(kept, "--sandbox-timeout=20").assert_outcomes(passed=4)
    assert log.distinct() == 5


def test_a_damaged_archive_is_said_and_made_good(
    suite: RunSuite, kept: str, log: Log, pytester: pytest.Pytester
) -> None:
    suite(kept).assert_outcomes(passed=4)
    for archive in Path(os.environ["SANDBOX_STORE"], "objects").iterdir():
        archive.write_bytes(archive.read_bytes()[:-512])

    damaged = suite(kept, "-n1")

    damaged.assert_outcomes(passed=4)
    (damaged.stdout if "is dropped" in damaged.stdout.str() else damaged.stderr).fnmatch_lines(
        ["sandbox: baseline of test_suite.py: the kept archive * is dropped: *; it is made again"]
    )
    suite(kept).assert_outcomes(passed=4)
    assert log.distinct() == 2


@pytest.mark.parametrize("limit", ["--sandbox-store-size=1", "--sandbox-store-days=1e-9"])
def test_what_goes_beyond_the_store_s_limits_goes(suite: RunSuite, kept: str, limit: str) -> None:
    objects = Path(os.environ["SANDBOX_STORE"], "objects")
    suite(kept).assert_outcomes(passed=4)
    (first,) = objects.iterdir()

    suite(kept.replace("cat /proc", "cat  /proc"), limit).assert_outcomes(passed=4)

    assert not first.exists()


def test_a_failure_is_not_kept(suite: RunSuite, pytester: pytest.Pytester) -> None:
    source = """
        import os, pytest
        from pytest_sandbox import Baseline

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            return Baseline(commands=["exit 3"], key="same")

        def test_it(sandbox): pass
    """
    for _ in range(2):
        suite(source).assert_outcomes(errors=1)

    assert not Path(os.environ["SANDBOX_STORE"], "keys").exists()


@pytest.mark.parametrize(("key", "times"), [("", 2), ("1", 1)])
def test_a_function_is_kept_if_it_has_a_key(suite: RunSuite, log: Log, key: str, times: int) -> None:
    source = f"""
        import pytest
        from pytest_sandbox import Baseline

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            def prepare(sandbox):
                with open({str(log.path)!r}, "a") as log:
                    log.write("made\\n")
                sandbox.write_text("by", "function")
            return Baseline(prepare=prepare, key={key!r})

        def test_it(sandbox): assert sandbox.read_text("by") == "function"
    """
    for _ in range(2):
        suite(source).assert_outcomes(passed=1)

    assert log.path.read_text().splitlines() == ["made"] * times


def test_a_killed_maker_makes_way_for_another(suite: RunSuite, pytester: pytest.Pytester) -> None:
    result = suite(
        """
        import os, pathlib, signal, pytest
        from pytest_sandbox import Baseline

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            def prepare(sandbox):
                try:
                    pathlib.Path("first").mkdir()
                except FileExistsError:
                    sandbox.write_text("by", "another")
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
            return Baseline(prepare=prepare, key="1")

        @pytest.mark.parametrize("turn", range(4))
        def test_it(sandbox, turn):
            assert sandbox.read_text("by") == "another"
        """,
        "-n2",
    )

    result.assert_outcomes(passed=3, failed=1)


def test_it_may_be_made_with_other_settings_than_the_tests(suite: RunSuite) -> None:
    suite(
        """
        import pytest
        from pytest_sandbox import Baseline

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            return Baseline(commands=["ls /sys/class/net >there"], settings={"network": "bridge"})

        def test_it(sandbox):
            assert "eth0" in sandbox.read_text("there")
            assert "eth0" not in sandbox.exec("ls /sys/class/net").stdout.text
        """
    ).assert_outcomes(passed=1)


def test_what_also_changes_the_system_is_not_kept_in_part(suite: RunSuite, log: Log) -> None:
    source = f"""
        import pytest
        from pytest_sandbox import Baseline

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            return Baseline(commands=["cat /proc/sys/kernel/random/uuid | tee /etc/made >made"])

        def test_it(sandbox):
            assert sandbox.exists("/etc/made")
            with open({str(log.path)!r}, "a") as log:
                log.write(sandbox.read_text("made"))
    """
    first = suite(source)
    suite(source).assert_outcomes(passed=1)

    first.assert_outcomes(passed=1)
    first.stdout.fnmatch_lines(
        ["sandbox: baseline of test_suite.py: changes the system too, so nothing of it is kept; *"]
    )
    assert log.distinct() == 2


# --- kept as an image -------------------------------------------------------------------------------------------------


@pytest.fixture
def images(engine: DockerClient) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The images of baselines that this test made; removed with it."""

    def found() -> list[dict[str, Any]]:
        labelled = engine.api.images(filters={"label": "pytest-sandbox.baseline"})
        return [image for image in labelled if image["Id"] not in before]

    before: set[str] = set()
    before = {image["Id"] for image in found()}
    yield found
    for image in found():
        engine.api.remove_image(image["Id"], force=True)


SYSTEM = """
        import pytest
        from pytest_sandbox import Baseline

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            return Baseline(
                commands=["cat /proc/sys/kernel/random/uuid | tee /etc/made >made; ln -s /etc/made here"], system=True
            )

        @pytest.mark.parametrize("turn", range(4))
        def test_it(sandbox, turn):
            made = sandbox.read_text("made")
            assert sandbox.read_text("/etc/made") == sandbox.read_text("here") == made
            assert sandbox.exec("echo $PATH; id -un").stdout.text.endswith("root\\n")
            with open({log!r}, "a") as log:
                log.write(made)
"""


def test_what_a_baseline_does_to_the_system_is_kept_as_an_image(
    suite: RunSuite, log: Log, images: Callable[[], list[dict[str, Any]]], engine: DockerClient
) -> None:
    source = SYSTEM.format(log=str(log.path))

    suite(source, "-n2").assert_outcomes(passed=4)
    suite(source, "-n2").assert_outcomes(passed=4)

    assert log.distinct() == 1
    (image,) = images()
    engine.api.remove_image(image["Id"], force=True)
    suite(source).assert_outcomes(passed=4)
    assert log.distinct() == 2
    suite(source, "--sandbox-refresh").assert_outcomes(passed=4)
    assert log.distinct() == 3


def test_an_image_needs_something_to_be_found_by(suite: RunSuite) -> None:
    result = suite(
        """
        import pytest
        from pytest_sandbox import Baseline

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            return Baseline(prepare=lambda sandbox: None, system=True)

        def test_it(sandbox): pass
        """
    )

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*UsageError: Baseline(prepare=…, system=True) needs key=…*"])
