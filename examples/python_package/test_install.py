"""Testing a Python package as users get it: built into a wheel, installed into a fresh virtual environment.

A test suite that imports from the checkout never sees a module that the wheel lacks, a data file that was not packed,
or an entry point with a typing error. Shown here: something built once on the host and given to the sandbox; a virtual
environment in the workspace, which costs seconds once and then is only restored; and no network anywhere.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_sandbox import Baseline, Sandbox

PROJECT = Path(__file__).parent / "project"
PIP = [".venv/bin/pip", "--disable-pip-version-check", "--no-cache-dir"]
INSTALL = [*PIP, "install", "--quiet", "--no-index"]


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the package, built with its own backend in the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("wheels")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def sandbox_baseline(wheels: Path) -> Baseline:
    return Baseline(
        trees={"wheels": wheels},
        commands=["python3 -m venv .venv", [*INSTALL, "--find-links=wheels", "notebook-example"]],
    )


def note(sandbox: Sandbox, *arguments: str) -> str:
    return sandbox.exec([".venv/bin/note", *arguments], env={"NOTEBOOK": "notes"}, check=True).stdout.text


def test_the_entry_point_runs(sandbox: Sandbox) -> None:
    note(sandbox, "add", "milk")
    note(sandbox, "add", "Grüße, 世界")

    assert note(sandbox, "list") == "0001 milk\n0002 Grüße, 世界\n"


def test_data_files_are_in_the_wheel(sandbox: Sandbox) -> None:
    assert note(sandbox).startswith("Welcome.")


def test_the_version_is_that_of_the_metadata(sandbox: Sandbox) -> None:
    assert note(sandbox, "--version") == "1.2.0\n"


def test_it_runs_where_the_locale_is_not_set(sandbox: Sandbox) -> None:
    environment = {"PATH": "/usr/bin:/bin", "NOTEBOOK": "notes", "LC_ALL": "C"}

    sandbox.exec([".venv/bin/note", "add", "Grüße"], env=environment, replace_env=True, check=True)

    assert sandbox.read_text("notes/0001.txt") == "Grüße\n"


def test_uninstalling_leaves_nothing_behind(sandbox: Sandbox) -> None:
    sandbox.exec([*PIP, "uninstall", "--quiet", "--yes", "notebook-example"], check=True)

    assert sandbox.glob("**/*note*", ".venv") == []


def test_the_package_can_be_broken_here(sandbox: Sandbox) -> None:
    [cli] = sandbox.glob("lib/*/site-packages/notebook/cli.py", ".venv")
    sandbox.remove(cli)

    result = sandbox.exec([".venv/bin/note"])

    assert "ModuleNotFoundError: No module named 'notebook.cli'" in result.stderr.text


@pytest.mark.parametrize("turn", [1, 2])
def test_a_virtual_environment_survives_its_destruction(sandbox: Sandbox, turn: int) -> None:
    """Links to the interpreter, modes, times of bytecode caches: the restored one is as good as new."""
    assert note(sandbox, "--version") == "1.2.0\n"
    assert sandbox.exec([*PIP, "check"]).ok

    sandbox.remove(".venv", recursive=True)


def test_the_sandbox_reaches_no_package_index(sandbox: Sandbox) -> None:
    """So a dependency that the wheel forgets to name can't come in by accident either."""
    result = sandbox.exec([*PIP, "download", "--retries=0", "--timeout=2", "requests"])

    assert not result.ok
