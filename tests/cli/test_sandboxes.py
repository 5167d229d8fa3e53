"""ls, shell and rm."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_sandbox.cli.choice import Listed, NoSuchSandbox, Standing, chosen
from pytest_sandbox.cli.listing import shown_age, table
from pytest_sandbox.engines.kept import KeptNotes
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.models import FoundSandbox

from .conftest import SETTINGS, Command, Keep, Person

People = Callable[..., Person]


@pytest.fixture(scope="module")
def kept(keep: Keep) -> Sandbox:
    """One for all tests of the shell, which leave it as it was."""
    return keep("test_it.py::test_one", replace(SETTINGS, environment={"GREETING": "hello", "API_TOKEN": "hush"}))


# --- which one is meant -----------------------------------------------------------------------------------------------


def some(*names: str) -> list[Listed]:
    return [
        Listed(FoundSandbox(f"{number}f", name, "image", "", "", "", 0, True, True), Standing.KEPT, None)
        for number, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("pytest-sandbox-1a2b-3", "pytest-sandbox-1a2b-3"),  # though another one begins so
        ("1a2b-30", "pytest-sandbox-1a2b-30"),
        ("pytest-sandbox-c", "pytest-sandbox-c0de-1"),
        ("c0", "pytest-sandbox-c0de-1"),
        ("2f", "pytest-sandbox-c0de-1"),
    ],
)
def test_a_sandbox_is_named_by_its_name_or_id_or_a_beginning_of_it(word: str, name: str) -> None:
    sandboxes = some("pytest-sandbox-1a2b-3", "pytest-sandbox-1a2b-30", "pytest-sandbox-c0de-1")

    assert chosen(word, sandboxes).found.name == name


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("1a2b", "the beginning of several: pytest-sandbox-1a2b-3, pytest-sandbox-1a2b-30"),
        ("x", "those kept are: pytest-sandbox-1a2b-3, pytest-sandbox-1a2b-30"),
        ("", "no sandbox ''"),
    ],
)
def test_a_word_that_names_none_or_several_is_refused(word: str, reason: str) -> None:
    with pytest.raises(NoSuchSandbox, match=reason):
        chosen(word, some("pytest-sandbox-1a2b-3", "pytest-sandbox-1a2b-30"))


def test_where_none_is_kept_it_is_said_how_to_keep_some() -> None:
    with pytest.raises(NoSuchSandbox, match="none is kept; `pytest --sandbox-keep=failed`"):
        chosen("x", [])


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-1, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 days")]
)
def test_ages_are_told_in_the_unit_of_which_there_are_two(seconds: float, shown: str) -> None:
    assert shown_age(seconds) == shown


def test_columns_are_as_wide_as_they_have_to_be() -> None:
    assert table([("A", "B"), ("long", "x"), ("", "")]) == ["A     B", "long  x", ""]


# --- on the engine ----------------------------------------------------------------------------------------------------

pytestmark = pytest.mark.docker


def test_ls_tells_kept_ones_from_those_of_runs(kept: Sandbox, command: Command) -> None:
    with Sandbox.create(SETTINGS) as used:
        lines = command("ls").stdout.splitlines()
        listed = {each["name"]: each for each in json.loads(command("ls", "--json").stdout)}

    [line] = [line for line in lines if line.startswith(kept.name)]
    assert line.split()[-2:] == ["kept", "test_it.py::test_one"]
    assert line.split()[1] == SETTINGS.image
    assert (listed[kept.name]["state"], listed[kept.name]["id"]) == ("kept", kept.container.id)
    assert listed[used.name]["state"] == "in use"
    assert listed[used.name]["for"].startswith("process ")


def test_ls_drops_notes_on_what_is_gone(keep: Keep, command: Command) -> None:
    gone = keep("gone")
    note = next(note for note in KeptNotes().all() if note.name == gone.name)
    Sandbox.remove_kept(next(each for each in Sandbox.kept() if each.name == gone.name))
    KeptNotes().write(note)

    assert gone.name not in command("ls").stdout
    assert KeptNotes().find(note.identity) is None


def test_a_shell_is_a_terminal_like_any_other(kept: Sandbox, person: People) -> None:
    somebody = person("shell", kept.name.removeprefix("pytest-sandbox-"), rows=31, columns=99)

    somebody.types(b"stty size; echo $TERM-$GREETING-$PWD\r")
    somebody.sees(b"31 99")
    somebody.sees(b"xterm-hello-/workspace")
    somebody.resize(40, 120)
    # The shell is in front, so only it is told; the next command sees the size.
    somebody.types(b"while [ \"$(stty size)\" != '40 120' ]; do :; done; echo resi''zed\r")
    somebody.sees(b"resized")
    # The quotes tell what is shown from what was typed.
    somebody.types(b"sh -c 'echo u\"\"p; exec sleep 1000'\r")
    somebody.sees(b"up")
    somebody.types(b"\x03")  # ^C
    somebody.sees(b"# ")
    somebody.types(b"echo stat''us $?\r")
    somebody.sees(b"status 130")
    somebody.types(b"sleep 1234 & exit 7\r")

    assert somebody.leaves() == 7
    assert somebody.modes_are_as_before
    somebody.sees(b"left pytest-sandbox-")
    # What was left in the background runs on, and the next one finds it.
    other = person("shell", kept.container.id[:12], "sh", "-c", "ps | grep -q '[s]leep 1234' && kill -9 $$")
    assert other.leaves() == 128 + 9


def test_a_window_that_is_closed_ends_the_program_and_leaves_the_sandbox(
    kept: Sandbox, person: People, command: Command
) -> None:
    somebody = person("shell", kept.name, "sh", "-c", "echo here; exec sleep 4321")
    somebody.sees(b"here")

    somebody.hangs_up()

    somebody.leaves()
    again = person("shell", kept.name, "sh", "-c", "test $(ps | grep -c '[s]leep 4321') = 0")
    assert again.leaves() == 0
    assert kept.name in command("ls").stdout


def test_sigterm_gives_the_terminal_back(kept: Sandbox, person: People) -> None:
    somebody = person("shell", kept.name, "sh", "-c", "echo here; exec sleep 1000")
    somebody.sees(b"here")

    somebody.process.send_signal(signal.SIGTERM)

    assert somebody.leaves() == 128 + signal.SIGTERM
    assert somebody.modes_are_as_before


def test_a_second_shell_is_refused_and_so_is_removing(kept: Sandbox, person: People, command: Command) -> None:
    first = person("shell", kept.name, "sh", "-c", "echo here; read line")
    first.sees(b"here")

    second = person("shell", kept.name)
    second.sees(b"is in use by another process")
    assert second.leaves() == 1
    removing = command("rm", kept.name)
    assert (removing.returncode, "somebody works in" in removing.stderr) == (1, True)

    first.types(b"\r")
    assert first.leaves() == 0


def test_what_can_not_be_opened_says_why(kept: Sandbox, command: Command, person: People) -> None:
    without_terminal = command("shell", kept.name)
    assert (without_terminal.returncode, "takes a terminal" in without_terminal.stderr) == (1, True)
    unknown = person("shell", kept.name, "no-such-program")
    unknown.sees(b"no program 'no-such-program'")
    assert unknown.leaves() == 1
    with Sandbox.create(SETTINGS) as used:
        refused = person("shell", used.name)
        refused.sees(b"is in use, and a sandbox serves one process at a time")
        assert refused.leaves() == 1


def test_one_that_was_created_to_be_kept_can_be_opened_too(host: Path, person: People) -> None:
    sandbox = Sandbox.create(SETTINGS, keep=True)
    sandbox.detach()

    somebody = person("shell", sandbox.name, "pwd")

    somebody.sees(b"/")
    assert somebody.leaves() == 0
    Sandbox.remove_kept(next(each for each in Sandbox.kept() if each.name == sandbox.name))


@pytest.fixture
def _nothing_else_kept(kept: Sandbox) -> Iterator[None]:
    """That one is used by the others."""
    with KeptNotes().in_use(next(note.identity for note in KeptNotes().all() if note.name == kept.name)):
        yield


@pytest.mark.usefixtures("_nothing_else_kept")
def test_rm_removes_what_is_named_or_all_that_is_kept_and_nobody_uses(
    keep: Keep, kept: Sandbox, command: Command
) -> None:
    first, second, third = keep(), keep(), keep()
    with Sandbox.create(SETTINGS) as used:
        refused = command("rm", second.name, used.name)
        named = command("rm", first.name)
        remaining = command("rm", "--all")
        nothing = command("rm", "--all")
        unclear = command("rm")
        assert used.running()

    assert (refused.returncode, "is in use, not kept" in refused.stderr, refused.stdout) == (1, True, "")
    assert named.stdout == f"removed {first.name}\n"
    assert sorted(remaining.stdout.splitlines()) == sorted(f"removed {each.name}" for each in (second, third))
    assert nothing.stdout == "nothing to remove\n"
    assert unclear.returncode == 2
    assert [note.name for note in KeptNotes().all()] == [kept.name]


def test_an_engine_that_is_not_there_is_told_in_a_few_lines(command: Command, tmp_path: Path) -> None:
    result = command("ls", DOCKER_HOST=f"unix://{tmp_path}/none.sock")

    assert result.returncode == 1
    assert result.stderr.startswith("pytest-sandbox: no container engine answers at ")
    assert len(result.stderr.splitlines()) <= 5
