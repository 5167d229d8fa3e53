"""Testing programs that talk to people: an interpreter, an editor, a pager, a process list, a password prompt.

Shown here: `expect` for a dialogue, `wait_for_screen` for programs that draw, named keys, resizing, what a program
leaves on the screen and in the files. Nothing sleeps: each test waits for what a person would wait for.
"""

from __future__ import annotations

import re

import pytest

from pytest_sandbox import EOF, Sandbox, Terminal
from pytest_sandbox.core.screen import Screen

# These programs note in the home directory what they were used for; in /tmp that costs no container.
pytestmark = pytest.mark.sandbox(environment={"HOME": "/tmp", "XDG_DATA_HOME": "/tmp"})

POEM = "".join(f"line {number} of the poem\n" for number in range(1, 201))


def needs(sandbox: Sandbox, program: str) -> None:
    if not sandbox.exec(["sh", "-c", 'command -v "$0"', program]).ok:
        pytest.skip(f"image {sandbox.settings.image} has no {program}")


# --- python3 -i: a dialogue -------------------------------------------------------------------------------------------


@pytest.fixture
def python(sandbox: Sandbox) -> Terminal:
    terminal = sandbox.terminal(["python3", "-i", "-q"], env={"PYTHON_BASIC_REPL": "1", "NO_COLOR": "1"})
    terminal.expect(">>> ")
    return terminal


def test_the_interpreter_answers(python: Terminal) -> None:
    python.sendline("6 * 7")

    assert python.expect(">>> ").before.splitlines()[-1] == "42"


def test_a_block_is_entered_line_by_line(python: Terminal) -> None:
    python.sendline("for name in ['Ada', 'Grace']:")
    python.expect("... ")
    python.sendline("    print('hello', name)")
    python.expect("... ")
    python.sendline()

    assert python.expect(">>> ").before.splitlines()[-2:] == ["hello Ada", "hello Grace"]


def test_ctrl_c_interrupts_what_runs_but_not_the_interpreter(python: Terminal) -> None:
    python.sendline("import time; print('be' + 'gun'); time.sleep(1000)")
    python.expect("begun")
    python.press("ctrl-c")
    python.expect("KeyboardInterrupt")
    python.expect(">>> ")

    python.sendline("'still ' + 'here'")
    python.expect("still here")


def test_ctrl_d_is_the_end(python: Terminal) -> None:
    python.press("ctrl-d")

    python.expect(EOF)
    assert python.wait(timeout=10).exit_code == 0


# --- nano: a program that takes the whole screen ----------------------------------------------------------------------


def test_nano_edits_and_saves(sandbox: Sandbox) -> None:
    needs(sandbox, "nano")
    sandbox.write_text("letter.txt", "Dear Grace,\n")
    with sandbox.terminal(["nano", "letter.txt"]) as nano:
        assert nano.wait_for_screen("Dear Grace").alternate

        nano.press("down")
        nano.send("the bug was a moth.")
        nano.wait_for_screen("a moth.")
        nano.press("ctrl-o")
        nano.wait_for_screen("File Name to Write: letter.txt")
        nano.press("enter")
        nano.wait_for_screen("Wrote 2 lines")
        nano.press("ctrl-x")

        assert nano.wait(timeout=10).exit_code == 0
        assert not nano.screen.alternate  # the shell's own screen is back

    assert sandbox.read_text("letter.txt") == "Dear Grace,\nthe bug was a moth.\n"


def test_nano_asks_before_changes_are_lost(sandbox: Sandbox) -> None:
    needs(sandbox, "nano")
    sandbox.write_text("letter.txt", "Dear Grace,\n")
    with sandbox.terminal(["nano", "letter.txt"]) as nano:
        nano.wait_for_screen("Dear Grace")
        nano.send("Not ")
        nano.wait_for_screen("Not Dear Grace")
        nano.press("ctrl-x")
        nano.wait_for_screen("Save modified buffer?")
        nano.press("n")
        nano.wait(timeout=10)

    assert sandbox.read_text("letter.txt") == "Dear Grace,\n"


# --- less: a program that redraws -------------------------------------------------------------------------------------


def test_less_pages_searches_and_fills_a_larger_window(sandbox: Sandbox) -> None:
    needs(sandbox, "less")
    sandbox.write_text("poem", POEM)
    with sandbox.terminal(["less", "poem"], rows=10) as less:
        less.wait_for_screen(lambda screen: screen.lines[8] == "line 9 of the poem")

        less.press("space")
        less.wait_for_screen(lambda screen: screen.lines[0] == "line 10 of the poem")

        less.sendline("/line 150")
        less.wait_for_screen(lambda screen: screen.lines[0] == "line 150 of the poem")

        less.resize(20, 80)
        less.send("r")  # "repaint": less overlooks a new size that comes when it is just about to wait for a key
        less.wait_for_screen(lambda screen: screen.lines[18] == "line 168 of the poem")

        less.press("q")
        assert less.wait(timeout=10).exit_code == 0


# --- top: a screen that changes by itself -----------------------------------------------------------------------------


def test_top_shows_a_process_for_as_long_as_it_lives(sandbox: Sandbox) -> None:
    needs(sandbox, "top")
    with sandbox.start(["sleep", "1000"]) as process, sandbox.terminal(["top", "-d", "0.2"]) as top:

        def listed(screen: Screen) -> bool:
            return any(re.match(rf"\s*{process.pid}\s", line) for line in screen.lines)

        top.wait_for_screen(listed)
        process.kill()
        top.wait_for_screen(lambda screen: not listed(screen))

        top.press("q")
        top.expect(EOF)


# --- passwd: a password that is not shown -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("again", "outcome", "changed"),
    [("correct horse", "password updated successfully", True), ("battery staple", "passwords do not match", False)],
)
def test_passwd_asks_twice(sandbox: Sandbox, again: str, outcome: str, changed: bool) -> None:
    sandbox.exec(["useradd", "ada"], check=True)
    before = sandbox.read_text("/etc/shadow")
    with sandbox.terminal(["passwd", "ada"]) as passwd:
        passwd.expect("New password: ")
        passwd.sendline("correct horse")
        passwd.expect("Retype new password: ")
        passwd.sendline(again)
        passwd.expect(outcome, timeout=20)  # a wrong one is answered late, on purpose

        assert again not in passwd.output.text

    assert (sandbox.read_text("/etc/shadow") != before) == changed


# --- git rebase -i: a program that starts another one -----------------------------------------------------------------


def test_a_rebase_in_an_editor(sandbox: Sandbox) -> None:
    needs(sandbox, "nano")
    sandbox.exec(
        "git init -q -b main . && git config user.name Ada && git config user.email ada@example.org"
        " && for name in one two three; do echo $name > $name; git add $name; git commit -qm $name; done",
        check=True,
    )
    with sandbox.terminal(["git", "rebase", "-i", "--root"], env={"GIT_EDITOR": "nano"}) as rebase:
        rebase.wait_for_screen(re.compile(r"pick \w+ one\npick \w+ two\npick \w+ three"))

        rebase.press("down", "down", "ctrl-k", "ctrl-x")
        rebase.wait_for_screen("Save modified buffer?")
        rebase.press("y")
        rebase.wait_for_screen("File Name to Write")
        rebase.press("enter")

        rebase.expect("Successfully rebased")
        assert rebase.wait(timeout=10).exit_code == 0

    assert sandbox.exec("git log --format=%s", check=True).stdout.text.split() == ["two", "one"]
