"""Images made from local files, as a suite asks for them; and what is seen meanwhile."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker.errors
import pytest
from docker import DockerClient

from .conftest import IMAGE, RunSuite

pytestmark = pytest.mark.docker

SUITE = """
    def test_built(sandbox):
        assert sandbox.read_text("/what") == "built\\n"
"""


@pytest.fixture(autouse=True)
def own_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: DockerClient) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SANDBOX_IMAGE", "./image")
    yield
    for used in (tmp_path / "cache").rglob("pytest-sandbox-image-*.used"):
        try:
            engine.images.remove(used.stem.replace("image-", "image:"), force=True)
        except docker.errors.ImageNotFound:
            pass  # its build failed


@pytest.fixture
def context(pytester: pytest.Pytester) -> Path:
    folder = pytester.mkdir("image")
    (folder / "Dockerfile").write_text(f"FROM {IMAGE}\nLABEL of={uuid.uuid4().hex}\nRUN echo built > /what\n")
    return folder


def test_a_failing_build_is_told_once_for_each_worker_and_stays_short(suite_both_ways: RunSuite, context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo what is wrong; exit 7\n")

    result = suite_both_ways("def test_one(sandbox): pass\ndef test_two(sandbox): pass")

    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines([f"*ImageNotMade: no image from {context}: building: *code: 7", "*what is wrong"])


def test_the_setting_names_a_folder(suite_both_ways: RunSuite, context: Path) -> None:
    suite_both_ways(SUITE).assert_outcomes(passed=1)


def test_a_marker_and_the_fixture_take_an_image(
    suite: RunSuite, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX_IMAGE", IMAGE)
    (context / "Dockerfile").write_text("ARG BASE\nFROM $BASE\nARG OF\nRUN echo $OF > /what\n")

    result = suite(
        f"""
        from dataclasses import replace
        from pathlib import Path

        import pytest
        from pytest_sandbox import Image

        @pytest.fixture(scope="session")
        def sandbox_settings(sandbox_settings):
            arguments = {{"BASE": sandbox_settings.image, "OF": {uuid.uuid4().hex!r}}}
            return replace(sandbox_settings, image=Image(Path({str(context)!r}), args=arguments))

        def test_fixture(sandbox):
            assert sandbox.read_text("/what").strip() == sandbox.settings.image.args["OF"]

        @pytest.mark.sandbox(image=Image(Path({str(context)!r}), args={{"BASE": {IMAGE!r}, "OF": "marker"}}))
        def test_marker(sandbox, sandbox_factory):
            assert sandbox.read_text("/what") == "marker\\n"
            assert not sandbox_factory(image={IMAGE!r}).exists("/what")
        """
    )

    result.assert_outcomes(passed=2)


def test_a_terminal_shows_what_is_built_and_a_file_does_not(pytester: pytest.Pytester, context: Path) -> None:
    (pytester.path / "test_suite.py").write_text(textwrap.dedent(SUITE))

    shown = in_terminal([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_suite.py"], pytester.path)
    (context / "new").write_text("so it is built again")
    written = pytester.runpytest_subprocess()

    assert "sandbox: building image: [" in shown
    assert "2/2] RUN echo built" in shown
    assert "1 passed" in shown
    written.assert_outcomes(passed=1)
    written.stdout.no_fnmatch_line("*building*")
    written.stderr.no_fnmatch_line("*building*")


def in_terminal(command: list[str], directory: Path) -> str:
    """Run a command on a terminal, and return all that it wrote."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, cwd=directory, stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:
            pass  # EIO: nobody has the other end any more
    os.close(ours)
    return shown.decode(errors="replace")
