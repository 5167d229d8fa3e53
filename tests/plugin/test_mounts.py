"""The setting `mounts`, in containers."""

from __future__ import annotations

import pytest

from .conftest import RunSuite

pytestmark = pytest.mark.docker


def test_a_mount_that_is_none_names_its_source(suite: RunSuite, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nsandbox_mounts =\n    type=tmpfs,target=/a\n    type=bind,source=x,target=y\n")

    result = suite("def test_nothing(sandbox): pass")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*sandbox_mounts (tox.ini): mount 'type=bind,source=x,target=y,readonly': its target 'y' is relative*"]
    )


def test_baselines_are_made_anew_when_what_is_mounted_changes(suite: RunSuite, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nsandbox_mounts = type=bind,source=./data,target=/data\n")
    data = pytester.mkdir("data")
    made = """
        import pytest
        from pytest_sandbox import Baseline, Bind

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            return Baseline(commands=["cat /data/f > copy"])

        def test_baseline(sandbox):
            assert sandbox.read_text("copy") == "{text}\\n"

        @pytest.mark.sandbox(mounts=[Bind("data/f", "/data/f"), "type=tmpfs,target=/scratch"])
        def test_marker(sandbox_factory):
            sandbox = sandbox_factory()
            assert sandbox.exec("cat /data/f; ls -A /scratch; echo 1 > /scratch/f").stdout.text == "{text}\\n"
    """

    for text in ("one", "two!"):
        (data / "f").write_text(f"{text}\n")
        suite(made.format(text=text)).assert_outcomes(passed=2)
