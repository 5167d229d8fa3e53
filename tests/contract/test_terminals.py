"""What terminals promise, on every engine."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_sandbox.core.sandbox import SandboxCore
from pytest_sandbox.core.screen import Screen
from pytest_sandbox.errors import (
    CommandLost,
    CommandNotFound,
    InvalidSetting,
    NoSuchDirectory,
    NoSuchUser,
    ProcessStillRunning,
    SandboxClosed,
    SandboxLost,
    TerminalEnded,
    TerminalTimeout,
    UnknownKey,
    UsageError,
)
from pytest_sandbox.faces import Sandbox, Terminal
from pytest_sandbox.loop import run
from pytest_sandbox.models import EOF

MEBIBYTE = 1024 * 1024
SHELL = ["/bin/sh", "-i"]
PLAIN = {"PS1": "$ ", "ENV": "", "HISTFILE": ""}  # a prompt that is the same everywhere

# Reads keys one by one, as full-screen programs do, and shows each as its bytes.
KEYS = "stty raw -echo; echo ready; while byte=$(dd bs=1 count=1 2>/dev/null | od -An -tx1); do echo $byte; done"


def alive(sandbox: Sandbox, pid: int | str) -> bool:
    return sandbox.exec(f"kill -0 {int(pid)}").ok


# --- start ---


def test_a_command_has_a_terminal_of_the_default_size(sandbox: Sandbox) -> None:
    with sandbox.terminal("tty && stty size && echo $TERM") as terminal:
        ended = terminal.expect(EOF)

    assert re.fullmatch(r"/dev/(pts/)?\d+\n24 80\nxterm-256color\n", ended.before)


def test_a_terminal_has_the_size_it_was_asked_for(sandbox: Sandbox) -> None:
    with sandbox.terminal(["stty", "size"], rows=50, columns=132) as terminal:
        assert terminal.expect("\n").before == "50 132"


@pytest.mark.parametrize(("rows", "columns"), [(0, 80), (24, 0), (70_000, 80), (24, 70_000), (-1, 80)])
def test_a_size_that_no_terminal_can_have_is_refused(sandbox: Sandbox, rows: int, columns: int) -> None:
    with pytest.raises(InvalidSetting, match="a whole number from 1 to 65535"):
        sandbox.terminal(rows=rows, columns=columns)
    with sandbox.terminal(["cat"]) as terminal, pytest.raises(InvalidSetting):
        terminal.resize(rows, columns)


def test_a_size_that_no_screen_can_have_starts_nothing(sandbox: Sandbox) -> None:
    with pytest.raises(UsageError, match="at most 1,000,000 cells"):
        sandbox.terminal(["sleep", "1000"], rows=65_535, columns=65_535)

    assert sandbox.sweep() == 0
    with sandbox.terminal(["cat"]) as terminal, pytest.raises(UsageError, match="at most 1,000,000 cells"):
        terminal.resize(65_535, 65_535)


def test_without_a_command_it_is_the_users_shell(sandbox: Sandbox) -> None:
    wanted = sandbox.exec("grep ^root: /etc/passwd | cut -d: -f7", check=True).stdout.text.strip()

    with sandbox.terminal(env=PLAIN) as terminal:
        terminal.sendline("readlink -f /proc/$$/exe; exit 3")
        shown = terminal.expect(EOF).before

        assert sandbox.exec(["readlink", "-f", wanted]).stdout.text.strip() in shown
        assert terminal.wait().exit_code == 3


def test_a_user_whose_shell_says_no(sandbox: Sandbox) -> None:
    shell = sandbox.exec("grep ^nobody: /etc/passwd | cut -d: -f7", check=True).stdout.text.strip()
    assert shell.endswith(("nologin", "false"))

    says_no = r"terminal `shell` ended with exit code 1, and could not show '\$ '"
    with sandbox.terminal(user="nobody", cwd="/") as terminal, pytest.raises(TerminalEnded, match=says_no):
        terminal.expect("$ ")


def test_a_user_without_an_entry_has_bin_sh(sandbox: Sandbox) -> None:
    with sandbox.terminal(user="54321:54321", cwd="/", env=PLAIN) as terminal:
        terminal.sendline("echo I am $(id -u)")

        terminal.expect("I am 54321")


def test_the_terminal_is_the_users_own(sandbox: Sandbox) -> None:
    with sandbox.terminal("echo again > $(tty); echo direct > /dev/tty", user="65534:65534", cwd="/") as terminal:
        assert terminal.expect(EOF).before == "again\ndirect\n"


def test_cwd_and_env_are_as_in_exec(sandbox: Sandbox) -> None:
    sandbox.mkdir("inner")

    with sandbox.terminal("pwd; echo $MINE $TERM", cwd="inner", env={"MINE": "a b", "TERM": "dumb"}) as terminal:
        assert terminal.expect(EOF).before == f"{sandbox.workspace}/inner\na b dumb\n"


def test_what_can_not_start(sandbox: Sandbox) -> None:
    with pytest.raises(CommandNotFound, match="no-such-program"):
        sandbox.terminal(["no-such-program"])
    with pytest.raises(NoSuchUser):
        sandbox.terminal(user="no-such-user")
    with pytest.raises(NoSuchDirectory):
        sandbox.terminal(cwd="missing")
    with pytest.raises(ValueError, match="empty command"):
        sandbox.terminal([])


# --- expect ---


def test_expect_goes_on_where_the_last_one_matched(sandbox: Sandbox) -> None:
    with sandbox.terminal("echo one two one three") as terminal:
        first = terminal.expect("one")
        second = terminal.expect("one")
        rest = terminal.expect(EOF)

    assert (first.before, first.text, second.before, second.text) == ("", "one", " two ", "one")
    assert rest.before == " three\n"


def test_expect_says_which_alternative_came_first(sandbox: Sandbox) -> None:
    with sandbox.terminal("echo the quick brown fox") as terminal:
        match = terminal.expect(["fox", re.compile(r"qu(i)ck"), "lazy dog", EOF])

    assert (match.index, match.text, match.before, match.after) == (1, "quick", "the ", " brown fox\n")
    assert match.match is not None
    assert match.match[1] == "i"


def test_expect_sees_text_without_control_sequences(sandbox: Sandbox) -> None:
    script = r"printf '\033[1;31mre'; printf 'd\033[0m \033]0;a title\007green\033[K\r\nnext'"
    with sandbox.terminal(script) as terminal:
        assert terminal.expect(EOF).before == "red green\nnext"
        assert terminal.output.startswith(b"\x1b[1;31mre")
        assert terminal.screen.title == "a title"


def test_expect_that_waits_in_vain_shows_screen_and_stream(sandbox: Sandbox) -> None:
    with sandbox.terminal("echo something else; exec sleep 1000") as terminal:
        with pytest.raises(TerminalTimeout) as caught:
            terminal.expect(["this", re.compile("or (that)")], timeout=0.2)

        assert terminal.expect("something").text == "something"  # nothing was lost

    message = str(caught.value)
    assert "did not show 'this' or 'or (that)' within 0.2 s" in message
    assert "│something else" in message or "something else  " in message
    assert "stream:\n  something else" in message
    assert isinstance(caught.value, TimeoutError)


def test_expect_on_a_command_that_ends(sandbox: Sandbox) -> None:
    with sandbox.terminal("echo last words; exit 7") as terminal:
        with pytest.raises(TerminalEnded) as caught:
            terminal.expect("something else")

        assert terminal.expect("words").before == "last "

    assert "ended with exit code 7, and could not show 'something else'" in str(caught.value)
    assert "last words" in caught.value.screen


def test_expect_on_a_command_killed_by_a_signal(sandbox: Sandbox) -> None:
    with sandbox.terminal("kill -9 $$") as terminal, pytest.raises(TerminalEnded, match="was ended by signal 9"):
        terminal.expect("anything")


@pytest.mark.parametrize("pattern", ["", [], ["x", ""]])
def test_a_pattern_of_nothing_is_refused(sandbox: Sandbox, pattern: str | list[str]) -> None:
    with sandbox.terminal(["cat"]) as terminal, pytest.raises(ValueError, match="nothing to wait for"):
        terminal.expect(pattern)


def test_a_pattern_of_bytes_is_refused(sandbox: Sandbox) -> None:
    with sandbox.terminal(["cat"]) as terminal, pytest.raises(TypeError, match="expected text"):
        terminal.expect([b"bytes"])  # type: ignore[list-item]


def test_lines_come_one_by_one_until_the_end(sandbox: Sandbox) -> None:
    with sandbox.terminal("echo one; echo two; printf three") as terminal:
        assert list(terminal) == ["one\n", "two\n", "three"]


def test_the_end_comes_though_a_child_holds_the_terminal(sandbox: Sandbox) -> None:
    with sandbox.terminal("trap '' HUP; sleep 1000 & echo $!; printf last") as terminal:
        pid, _, last = terminal.expect(EOF, timeout=20).before.partition("\n")

        assert last == "last"
        assert terminal.wait(timeout=20).survivors
        assert alive(sandbox, pid)

    assert not alive(sandbox, pid)


def test_the_end_comes_though_a_child_writes_on_and_on(sandbox: Sandbox) -> None:
    with sandbox.terminal("trap '' HUP; (while :; do echo on and on; done) & read go; echo last; exit 9") as terminal:
        terminal.expect("on and on")
        terminal.sendline()

        assert "last\n" in terminal.expect(EOF, timeout=20).before
        assert terminal.wait(timeout=20).exit_code == 9


@pytest.mark.parametrize("buffer", [0, -1])
def test_a_buffer_of_nothing_is_refused(sandbox: Sandbox, buffer: int) -> None:
    with pytest.raises(InvalidSetting, match="a number of bytes above 0"):
        sandbox.terminal(buffer=buffer)


# --- output is whole ---


def test_not_a_byte_is_lost_at_the_end(sandbox: Sandbox) -> None:
    for _ in range(10):
        with sandbox.terminal(["head", "-c", "3000000", "/dev/zero"]) as terminal:
            terminal.expect(EOF)

            assert terminal.output.total_bytes == 3_000_000
            assert terminal.wait().stdout_bytes == 3_000_000


def test_not_a_byte_is_lost_though_a_child_holds_the_terminal(sandbox: Sandbox) -> None:
    script = "trap '' HUP; sleep 1000 & exec head -c 3000000 /dev/zero"
    with sandbox.terminal(script) as terminal:
        terminal.expect(EOF, timeout=20)

        assert terminal.output.total_bytes == 3_000_000


def test_memory_is_bounded_and_what_was_dropped_is_counted(sandbox: Sandbox) -> None:
    with sandbox.terminal("head -c 5000000 /dev/zero; echo end", buffer=10_000) as terminal:
        ended = terminal.expect(EOF)
        output = terminal.output

    assert (len(output), output.total_bytes, output.truncated) == (10_000, 5_000_005, True)
    assert output.endswith(b"\0end\r\n")
    assert ended.before == "end\n"


def test_a_character_that_comes_in_pieces_is_whole(sandbox: Sandbox) -> None:
    script = r"printf 'gr\303'; read go; printf '\274n \342\202'; read go; printf '\254\n'; read go"
    with sandbox.terminal(f"stty -echo; {script}") as terminal:
        terminal.expect("gr")
        terminal.sendline()
        assert terminal.expect("ün ").before == ""
        terminal.sendline()
        assert terminal.expect("\n").before == "€"
        assert "grün €" in terminal.screen.lines


def test_bytes_that_are_no_text_are_replaced(sandbox: Sandbox) -> None:
    with sandbox.terminal(r"printf 'a\377b\300\200c\n'") as terminal:
        assert re.fullmatch("a\ufffdb\ufffd+c\n", terminal.expect(EOF).before)
        assert terminal.output == b"a\xffb\xc0\x80c\r\n"


@pytest.mark.parametrize("opening", [r"\033]0;", r"\033P", r"\033["], ids=["title", "device string", "parameters"])
def test_an_escape_string_of_a_megabyte_costs_nothing(sandbox: Sandbox, opening: str) -> None:
    script = f"printf '{opening}'; head -c 1000000 /dev/zero | tr '\\0' '1'; printf '\\033\\\\visible'"
    with sandbox.terminal(script) as terminal:
        assert terminal.expect(EOF).before == "visible"
        assert "visible" in terminal.screen.text
        assert len(terminal.screen.title) < 10_000


def test_a_flood_delays_nothing(sandbox: Sandbox) -> None:
    with sandbox.terminal("while :; do echo flood; done") as terminal:
        terminal.expect("flood")

        assert sandbox.exec(["echo", "prompt"], timeout=5).stdout == b"prompt\n"


# --- input ---


def test_control_c_interrupts_with_130_and_control_backslash_quits_with_131(sandbox: Sandbox) -> None:
    with sandbox.terminal(SHELL, env=PLAIN) as terminal:
        for key, status in (("ctrl-c", "130"), ("ctrl-\\", "131")):
            terminal.sendline("ulimit -c 0; echo beg''un; cat")
            terminal.expect("begun\n")
            terminal.sendline("by cat")
            terminal.expect("by cat\nby cat\n")
            terminal.press(key)
            terminal.expect("$ ")
            terminal.sendline("echo status $?")
            terminal.expect(f"status {status}\n")


def test_control_d_ends_the_input(sandbox: Sandbox) -> None:
    with sandbox.terminal(["cat"]) as terminal:
        terminal.sendline("echoed")
        terminal.press("ctrl-d")

        assert terminal.expect(EOF).before == "echoed\nechoed\n"
        assert terminal.wait().exit_code == 0


def test_keys_send_what_programs_expect(sandbox: Sandbox) -> None:
    with sandbox.terminal(KEYS) as terminal:
        terminal.expect("ready\n")
        terminal.press("up", "f5", "alt-x", "shift-tab", "ü")

        for byte in ["1b", "5b", "41", "1b", "5b", "31", "35", "7e", "1b", "78", "1b", "5b", "5a", "c3", "bc"]:
            assert terminal.expect("\n").before.strip() == byte


def test_cursor_keys_follow_the_mode_that_the_program_set(sandbox: Sandbox) -> None:
    with sandbox.terminal(r"printf '\033[?1h'; " + KEYS) as terminal:
        terminal.expect("ready\n")
        terminal.press("up")

        assert [terminal.expect("\n").before.strip() for _ in range(3)] == ["1b", "4f", "41"]


def test_an_unknown_key_is_refused_before_anything_is_sent(sandbox: Sandbox) -> None:
    with sandbox.terminal(["cat"]) as terminal:
        with pytest.raises(UnknownKey, match=r"no key is called 'pgup'; did you mean pageup"):
            terminal.press("a", "enter", "pgup")
        terminal.sendline("b")

        assert terminal.expect("\n").before == "b"


@pytest.mark.parametrize(("mode", "received"), [("", "one\ntwo\n"), (r"\033[?2004h", "\x1b[200~one\ntwo\x1b[201~\n")])
def test_a_paste_is_in_brackets_for_a_program_that_asked(sandbox: Sandbox, mode: str, received: str) -> None:
    with sandbox.terminal(f"stty -echo; printf 'ready{mode}\\n'; head -n 2 > pasted") as terminal:
        terminal.expect("ready")
        terminal.wait_for_screen(lambda screen: screen.bracketed_paste == bool(mode))
        terminal.paste("one\ntwo")
        terminal.press("enter")
        terminal.expect(EOF)

    assert sandbox.read_text("pasted") == received


def test_the_terminal_answers_programs_that_ask_it(sandbox: Sandbox) -> None:
    script = (
        r"stty raw -echo; printf 'ab\033[6n'; answer=$(dd bs=1 count=6 2>/dev/null | od -An -tx1); echo got $answer"
    )
    with sandbox.terminal(script) as terminal:
        terminal.expect("got 1b 5b 31 3b 33 52")


def test_a_program_that_never_reads_does_not_hang_send(sandbox: Sandbox) -> None:
    with sandbox.terminal("stty raw -echo; echo ready; exec sleep 1000") as terminal:
        terminal.expect("ready")
        started = time.monotonic()
        with pytest.raises(TerminalTimeout, match=r"did not take 4194304 bytes of input within 0\.3 s"):
            terminal.send(bytes(4 * MEBIBYTE), timeout=0.3)

        assert time.monotonic() - started < 5
        assert sandbox.exec(["true"]).ok


def test_input_of_any_size_reaches_a_program_that_reads(sandbox: Sandbox) -> None:
    script = f"stty raw -echo; echo ready; head -c {4 * MEBIBYTE} | md5sum"
    with sandbox.terminal(script) as terminal:
        terminal.expect("ready")
        content = bytes(range(256)) * (4 * MEBIBYTE // 256)
        terminal.send(content)

        terminal.expect(hashlib.md5(content).hexdigest())


def test_sending_to_a_command_that_has_ended(sandbox: Sandbox) -> None:
    with sandbox.terminal("exit 4") as terminal:
        terminal.wait()

        for attempt in (terminal.send, terminal.sendline, terminal.press, terminal.paste):
            with pytest.raises(TerminalEnded, match="ended with exit code 4, and could not take input"):
                attempt("x")


def test_sending_to_a_command_that_ends_meanwhile(sandbox: Sandbox) -> None:
    with sandbox.terminal("stty raw -echo; echo ready; sleep 0.3; exit 4") as terminal:
        terminal.expect("ready")
        with pytest.raises(TerminalEnded, match="exit code 4"):
            terminal.send(bytes(4 * MEBIBYTE))


# --- the screen ---


def test_the_screen_is_what_a_person_sees(sandbox: Sandbox) -> None:
    with sandbox.terminal(r"printf 'over\rOVER\033[5;10Hthere'; exec sleep 1000") as terminal:
        screen = terminal.wait_for_screen("there")

        assert screen.lines[0] == "OVER"
        assert screen.lines[4] == "         there"
        assert (screen.cursor.row, screen.cursor.column) == (4, 14)


def test_a_screen_condition_may_be_a_pattern_or_a_function(sandbox: Sandbox) -> None:
    with sandbox.terminal("for i in 1 2 3; do echo line $i; done; exec sleep 1000") as terminal:
        terminal.wait_for_screen(re.compile(r"line \d\nline 2"))

        def third(screen: Screen) -> bool:
            return screen.lines[2] == "line 3"

        assert terminal.wait_for_screen(third).cursor.row == 3


def test_a_screen_condition_that_never_holds(sandbox: Sandbox) -> None:
    with sandbox.terminal("echo shown; exec sleep 1000") as terminal:
        with pytest.raises(TerminalTimeout, match=r"did not show 'missing' on its screen within 0\.2 s") as caught:
            terminal.wait_for_screen("missing", timeout=0.2)

        assert "shown" in caught.value.screen


def test_a_screen_condition_that_fails_raises_its_own_error(sandbox: Sandbox) -> None:
    with sandbox.terminal("echo shown; exec sleep 1000") as terminal, pytest.raises(IndexError):
        terminal.wait_for_screen(lambda screen: screen.lines[99])


@pytest.mark.parametrize(("name", "beginning"), [("a.svg", b"<svg "), ("a.png", b"\x89PNG")])
def test_a_screenshot_is_a_picture_of_the_screen(sandbox: Sandbox, tmp_path: Path, name: str, beginning: bytes) -> None:
    with sandbox.terminal("printf '\\033[31mred'; cat") as terminal:
        terminal.wait_for_screen("red")

        terminal.screenshot(tmp_path / name)

    assert (tmp_path / name).read_bytes().startswith(beginning)


def test_a_screenshot_of_another_kind_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    with sandbox.terminal("cat") as terminal, pytest.raises(UsageError, match="svg"):
        terminal.screenshot(tmp_path / "a.gif")


def test_a_screen_does_not_change_afterwards(sandbox: Sandbox) -> None:
    with sandbox.terminal("echo before; read go; echo after; read go") as terminal:
        before = terminal.wait_for_screen("before")
        terminal.sendline()
        terminal.wait_for_screen("after")

    assert "after" not in before.text


def test_the_screen_after_a_flood_of_lines(sandbox: Sandbox) -> None:
    with sandbox.terminal("seq 100000; printf end", rows=5) as terminal:
        terminal.expect(EOF)
        screen = terminal.screen

    assert screen.lines == ["99997", "99998", "99999", "100000", "end"]
    assert screen.scrollback == [str(number) for number in range(98_997, 99_997)]


def test_the_alternate_screen_comes_and_goes(sandbox: Sandbox) -> None:
    script = r"echo shell; printf '\033[?1049h\033[Hfull'; read go; printf '\033[?1049l'; read go"
    with sandbox.terminal(script) as terminal:
        assert terminal.wait_for_screen("full").alternate
        terminal.sendline()
        assert terminal.wait_for_screen(lambda screen: not screen.alternate).lines[0] == "shell"


def test_resizing_reaches_the_program(sandbox: Sandbox) -> None:
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done"
    with sandbox.terminal(script) as terminal:
        terminal.expect("ready\n")
        terminal.resize(40, 100)

        assert terminal.expect("\n").before == "40 100"
        assert (terminal.screen.rows, terminal.screen.columns) == (40, 100)


# --- collecting ---


def test_reading_until_a_program_waits_for_input(sandbox: Sandbox) -> None:
    with sandbox.terminal("echo question; read answer; echo $answer; exec sleep 1000") as terminal:
        assert terminal.read_until_idle() == "question\n"
        terminal.sendline("42")
        assert terminal.read_until_idle() == "42\n42\n"
        assert terminal.read_until_idle(0.01) == ""


def test_reading_until_idle_is_bounded(sandbox: Sandbox) -> None:
    with sandbox.terminal("while :; do echo on and on; done") as terminal, pytest.raises(TerminalTimeout, match="rest"):
        terminal.read_until_idle(timeout=0.3)


def test_collecting_ends_with_the_command(sandbox: Sandbox) -> None:
    with sandbox.terminal("echo all; exit 0") as terminal:
        collected = terminal.collect(within=20)

    assert (collected.text, collected.tokens, collected.truncated) == ("all\n", 1, False)


def test_collecting_ends_in_time(sandbox: Sandbox) -> None:
    with sandbox.terminal("echo some; exec sleep 1000") as terminal:
        started = time.monotonic()

        assert terminal.collect(within=0.3).text == "some\n"
        assert 0.3 <= time.monotonic() - started < 0.8


def test_collecting_ends_when_idle(sandbox: Sandbox) -> None:
    with sandbox.terminal("echo some; exec sleep 1000") as terminal:
        started = time.monotonic()

        assert terminal.collect(within=20, idle=0.1).text == "some\n"
        assert time.monotonic() - started < 5


def test_collecting_keeps_head_and_tail_within_the_budget(sandbox: Sandbox) -> None:
    with sandbox.terminal("echo head; seq 100000; echo tail") as terminal:
        collected = terminal.collect(within=20, max_tokens=50)

    assert collected.truncated
    assert len(collected.text.encode()) <= 200
    assert collected.text.startswith("head\n1\n2\n")
    assert collected.text.endswith("99999\n100000\ntail\n")
    assert f"{collected.tokens} tokens" in collected.text
    assert collected.tokens == (588_895 + 10 + 3) // 4


# --- the end ---


def test_terminate_ends_the_whole_tree_of_a_shell(sandbox: Sandbox) -> None:
    with sandbox.terminal(SHELL, env=PLAIN) as terminal:
        terminal.sendline("(trap '' HUP TERM; exec setsid sleep 1000) & echo pid $!.")
        match = terminal.expect(re.compile(r"pid (\d+)\.\n")).match
        assert match is not None
        terminal.terminate(grace=0.2)

        assert not alive(sandbox, match[1])
        assert terminal.wait().exit_code < 0
        assert terminal.finished


def test_leaving_a_terminal_hangs_up(sandbox: Sandbox) -> None:
    with sandbox.terminal("echo $$; exec sleep 1000") as terminal:
        pid = terminal.expect("\n").before
        assert not terminal.finished

    assert not alive(sandbox, pid)
    with pytest.raises(TerminalEnded, match="was closed, and could not take input"):
        terminal.send("x")


def test_a_program_that_lets_go_of_its_terminal_lives_on(sandbox: Sandbox) -> None:
    sandbox.exec("mkfifo go", check=True)
    with sandbox.terminal("exec </dev/null >/dev/null 2>&1; cat go; echo back >/dev/tty; exit 6") as terminal:
        sandbox.write_text("gone", "")
        sandbox.exec("echo > go", check=True, timeout=20)

        assert terminal.expect(EOF).before == "back\n"
        assert terminal.wait().exit_code == 6


def test_signals_by_name(sandbox: Sandbox) -> None:
    with sandbox.terminal("trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.02; done") as terminal:
        terminal.expect("ready")
        terminal.send_signal("USR1")
        terminal.expect("caught")

        assert terminal.wait(timeout=20).exit_code == 5


def test_waiting_can_be_bounded(sandbox: Sandbox) -> None:
    with sandbox.terminal(["cat"]) as terminal, pytest.raises(ProcessStillRunning, match="still running"):
        terminal.wait(timeout=0.05)


def test_a_supervisor_killed_from_inside(sandbox: Sandbox) -> None:
    with sandbox.terminal("read go; kill -9 $PPID; sleep 1000") as terminal:
        terminal.sendline()
        with pytest.raises(CommandLost):
            terminal.expect("anything", timeout=20)


def test_a_sweep_ends_terminals_too(sandbox: Sandbox) -> None:
    terminal = sandbox.terminal(["cat"])

    sandbox.sweep()

    with pytest.raises(TerminalEnded, match="was ended by signal 9"):
        terminal.expect("anything")


def test_all_terminals_end_at_once(sandbox: Sandbox) -> None:
    terminals = [sandbox.terminal("trap '' HUP TERM; echo ready; while :; do sleep 1; done") for _ in range(10)]
    for terminal in terminals:
        terminal.expect("ready")

    sandbox.close_terminals()

    assert all(terminal.finished for terminal in terminals)


def test_a_terminal_of_a_closed_sandbox(fresh: Sandbox) -> None:
    terminal = fresh.terminal(["cat"])
    fresh.close()

    with pytest.raises(SandboxClosed):
        terminal.expect("anything")
    with pytest.raises(SandboxClosed):
        terminal.send("anything")


def test_waiting_ends_when_the_sandbox_vanishes(fresh: Sandbox, vanish: Callable[[Sandbox], None]) -> None:
    terminal = fresh.terminal(["cat"])
    threading.Timer(0.2, vanish, [fresh]).start()

    with pytest.raises(SandboxLost):
        terminal.expect("anything")


# --- many ---


def test_beyond_the_limit_the_oldest_is_closed(core: SandboxCore, sandbox: Sandbox) -> None:
    core.settings, kept = replace(core.settings, terminals=3), core.settings
    try:
        terminals = [sandbox.terminal(["cat"]) for _ in range(4)]

        with pytest.raises(TerminalEnded, match="was closed because more than terminals=3 were open"):
            terminals[0].sendline("x")
        for terminal in terminals[1:]:
            terminal.sendline("alive")
            terminal.expect("alive")
    finally:
        core.settings = kept
        sandbox.close_terminals()


def test_one_that_has_finished_goes_before_one_that_runs(core: SandboxCore, sandbox: Sandbox) -> None:
    core.settings, kept = replace(core.settings, terminals=10), core.settings
    try:
        running = sandbox.terminal(["cat"])
        finished = sandbox.terminal(["true"])
        finished.expect(EOF)
        others = [sandbox.terminal(["cat"]) for _ in range(9)]

        running.sendline("alive")
        running.expect("alive")
        assert len(others) == 9
        with pytest.raises(TerminalEnded, match="more than terminals=10"):
            finished.send("x")
    finally:
        core.settings = kept
        sandbox.close_terminals()


def test_a_warning_comes_before_the_limit(
    core: SandboxCore, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    core.settings, kept = replace(core.settings, terminals=6), core.settings
    try:
        sandbox.terminal(["cat"])
        assert not caplog.records
        sandbox.terminal(["cat"])

        assert [record.message.split()[0] for record in caplog.records] == ["terminal.many"]
    finally:
        core.settings = kept
        sandbox.close_terminals()


def test_sixty_at_once(sandbox: Sandbox) -> None:
    terminals: list[Terminal] = [sandbox.terminal(["cat"]) for _ in range(60)]
    for number, terminal in enumerate(terminals):
        terminal.sendline(f"number {number}")
    for number, terminal in enumerate(terminals):
        terminal.expect(f"number {number}\n")

    sandbox.close_terminals()


def test_what_a_recorder_is_told(core: SandboxCore, sandbox: Sandbox) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.events: list[tuple[object, ...]] = []

        def output(self, chunk: bytes, at: float) -> None:
            self.events.append(("output", chunk))

        def input(self, chunk: bytes, at: float) -> None:
            self.events.append(("input", chunk))

        def resize(self, rows: int, columns: int, at: float) -> None:
            self.events.append(("resize", rows, columns))

        def exit(self, status: int, at: float) -> None:
            self.events.append(("exit", status))

    recorder = Recorder()
    core.recorder = lambda *_: recorder
    try:
        with sandbox.terminal("stty -echo; echo ready; read go; exit 3") as terminal:
            terminal.expect("ready\n")
            terminal.resize(30, 90)
            terminal.sendline("go")
            terminal.wait()
    finally:
        core.recorder = None
        run(core.sweep())

    assert recorder.events == [("output", b"ready\r\n"), ("resize", 30, 90), ("input", b"go\r"), ("exit", 3)]
