"""What exec() and start() promise, on every engine."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_sandbox.core.sandbox import SandboxCore
from pytest_sandbox.errors import (
    ArgumentListTooLong,
    CommandFailed,
    CommandLost,
    CommandNotExecutable,
    CommandNotFound,
    CommandTimeout,
    NoSuchDirectory,
    NoSuchUser,
    OutputTruncated,
    ProcessStillRunning,
)
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.loop import run

MEBIBYTE = 1024 * 1024


def alive(sandbox: Sandbox, pid: int | bytes) -> bool:
    return sandbox.exec(f"kill -0 {int(pid)}").ok


# --- result ---


def test_a_result_has_exit_code_and_both_streams_apart(sandbox: Sandbox) -> None:
    result = sandbox.exec("echo out; echo err >&2; exit 3")

    assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    assert not result.ok
    assert not result.survivors


def test_a_sequence_is_run_without_a_shell(sandbox: Sandbox) -> None:
    result = sandbox.exec(["printf", "%s|", "$HOME", "a b", "*", ""])

    assert result.stdout == b"$HOME|a b|*||"


def test_a_shell_is_no_login_shell(sandbox: Sandbox) -> None:
    sandbox.exec("echo 'echo profile' > .profile", check=True)

    result = sandbox.exec("echo $PATH", env={"HOME": str(sandbox.workspace), "PATH": "/bin:/from/the/test"})

    assert result.stdout == b"/bin:/from/the/test\n"


def test_output_is_exact_to_the_byte(sandbox: Sandbox) -> None:
    every_byte = bytes(range(256))

    result = sandbox.exec(["cat"], stdin=every_byte)

    assert result.stdout == every_byte
    assert result.stdout.text.startswith("\0\1\2")


def test_a_signal_is_a_negative_exit_code(sandbox: Sandbox) -> None:
    assert sandbox.exec("kill -9 $$").exit_code == -9
    assert sandbox.exec("kill -TERM $$").exit_code == -15


def test_usage_is_measured(sandbox: Sandbox) -> None:
    result = sandbox.exec("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")

    assert result.usage.user_seconds > 0
    assert 100_000 < result.usage.peak_bytes < 100 * MEBIBYTE
    assert result.duration >= result.usage.user_seconds * 0.5


def test_check_raises_with_code_and_the_end_of_both_streams(sandbox: Sandbox) -> None:
    with pytest.raises(CommandFailed) as caught:
        sandbox.exec("seq 100; echo reason >&2; exit 4", check=True)

    assert caught.value.result.exit_code == 4
    assert "exit code 4" in str(caught.value)
    assert "  100\n" in str(caught.value)
    assert "  reason" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 15


def test_check_is_content_with_success(sandbox: Sandbox) -> None:
    assert sandbox.exec("echo fine", check=True).stdout.text == "fine\n"


# --- output limit ---


def test_output_beyond_the_limit_is_counted_and_dropped(sandbox: Sandbox) -> None:
    result = sandbox.exec("head -c 300000 /dev/zero; head -c 5 /dev/zero >&2", output_limit=1000)

    assert (len(result.stdout), result.stdout.total_bytes, result.stdout.truncated) == (1000, 300_000, True)
    assert (len(result.stderr), result.stderr.total_bytes, result.stderr.truncated) == (5, 5, False)


def test_output_of_exactly_the_limit_is_whole(sandbox: Sandbox) -> None:
    result = sandbox.exec("head -c 1000 /dev/zero", output_limit=1000)

    assert (len(result.stdout), result.stdout.truncated) == (1000, False)


def test_a_limit_of_nothing_keeps_nothing(sandbox: Sandbox) -> None:
    result = sandbox.exec("echo gone", output_limit=0, wait_all=True)

    assert (bytes(result.stdout), result.stdout.total_bytes) == (b"", 5)


def test_check_refuses_output_that_was_cut(sandbox: Sandbox) -> None:
    with pytest.raises(OutputTruncated, match="wrote 2000 bytes to stdout"):
        sandbox.exec("head -c 2000 /dev/zero", output_limit=1000, check=True)


def test_a_large_output_is_whole(sandbox: Sandbox) -> None:
    result = sandbox.exec(["head", "-c", str(48 * MEBIBYTE), "/dev/zero"], check=True)

    assert len(result.stdout) == 48 * MEBIBYTE
    assert result.stdout.count(0) == 48 * MEBIBYTE


# --- per call ---


def test_a_command_runs_in_the_workspace(sandbox: Sandbox) -> None:
    assert sandbox.exec("pwd").stdout.text.strip() == str(sandbox.workspace)


@pytest.mark.parametrize("cwd", ["inner", "/"])
def test_cwd_is_relative_to_the_workspace_or_absolute(sandbox: Sandbox, cwd: str) -> None:
    sandbox.exec("mkdir inner", check=True)

    assert sandbox.exec("pwd", cwd=cwd).stdout.text.strip() == str(sandbox.workspace / cwd)


def test_env_is_added(sandbox: Sandbox) -> None:
    result = sandbox.exec('echo "$ADDED"; test -n "$PATH"', env={"ADDED": "a=b c"}, check=True)

    assert result.stdout == b"a=b c\n"


def test_env_can_be_all_there_is(sandbox: Sandbox) -> None:
    assert sandbox.exec(["/usr/bin/env"], env={"ONLY": "this"}, replace_env=True).stdout == b"ONLY=this\n"


@pytest.mark.parametrize("name", ["", "A=B"])
def test_a_name_that_no_variable_can_have_is_refused(sandbox: Sandbox, name: str) -> None:
    with pytest.raises(ValueError, match="environment variable name"):
        sandbox.exec("true", env={name: "x"})


@pytest.mark.parametrize("arguments", [["echo", "a\0b"], "echo \0"])
def test_a_nul_in_an_argument_is_refused(sandbox: Sandbox, arguments: list[str] | str) -> None:
    with pytest.raises(ValueError, match="NUL"):
        sandbox.exec(arguments)


def test_an_empty_command_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="empty command"):
        sandbox.exec([])


@pytest.mark.parametrize(("user", "ids"), [(65534, "65534"), ("65534:12", "65534:12"), ("root", "0:0")])
def test_a_command_runs_as_the_user_named(sandbox: Sandbox, user: str | int, ids: str) -> None:
    result = sandbox.exec("echo $(id -u):$(id -g)", user=user, cwd="/")

    assert result.stdout.text.startswith(ids)


def test_a_user_has_home_and_path(sandbox: Sandbox) -> None:
    result = sandbox.exec('echo "$HOME $USER"; test -n "$PATH"', user="root", check=True)

    assert result.stdout == b"/root root\n"


# --- stdin ---


def test_stdin_is_empty_unless_given(sandbox: Sandbox) -> None:
    assert sandbox.exec(["cat"]).stdout == b""


def test_stdin_takes_text(sandbox: Sandbox) -> None:
    assert sandbox.exec(["cat"], stdin="grün\n").stdout.text == "grün\n"


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 9 * MEBIBYTE])
def test_stdin_takes_a_file_of_any_size(sandbox: Sandbox, size: int) -> None:
    content = os.urandom(size)

    assert sandbox.exec(["cat"], stdin=io.BytesIO(content)).stdout == content


def test_a_command_need_not_read_its_stdin(sandbox: Sandbox) -> None:
    result = sandbox.exec("exec 0<&-; echo done", stdin=bytes(20 * MEBIBYTE), timeout=20)

    assert (result.exit_code, result.stdout) == (0, b"done\n")


def test_a_command_may_stop_reading_its_stdin(sandbox: Sandbox) -> None:
    result = sandbox.exec("head -c 3; exec 0<&-", stdin=b"abc" + bytes(20 * MEBIBYTE), timeout=20)

    assert result.stdout == b"abc"


def test_a_stdin_that_never_ends_does_not_outlive_the_command(sandbox: Sandbox) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb"):
        assert sandbox.exec("echo done", stdin=source, timeout=20).stdout == b"done\n"


def test_a_source_that_fails_kills_the_command_and_raises_its_error(sandbox: Sandbox) -> None:
    class Broken(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise OSError("the disk is on fire")
            return super().read1(size)

    with pytest.raises(OSError, match="on fire"):
        sandbox.exec("echo $$ > pid; cat > /dev/null; sleep 1000", stdin=Broken(b"some"))

    assert sandbox.exec("test ! -s pid || ! kill -0 $(cat pid)").ok


def test_a_source_of_text_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(TypeError, match="binary mode"):
        sandbox.exec(["cat"], stdin=io.StringIO("text"))  # type: ignore[arg-type]


# --- timeout and cancellation ---

DESCENDANTS = {
    "child": "sh -c 'echo $$; exec sleep 1000' & wait",
    "setsid": "setsid sh -c 'echo $$; exec sleep 1000' & sleep 1000",
    "double fork": "(setsid sh -c 'echo $$; exec sleep 1000' &); sleep 1000",
    "env -i": "env -i setsid /bin/sh -c 'echo $$; exec /bin/sleep 1000' & sleep 1000",
    "ignores SIGTERM": "trap '' TERM; sh -c 'echo $$; exec sleep 1000' & sleep 1000",
    "stopped": "sh -c 'echo $$; kill -STOP $$; exec sleep 1000' & sleep 1000",
    "closed its streams": "setsid sh -c 'echo $$; exec sleep 1000 <&- >&- 2>&-' & sleep 1000",
    "has a child of its own": "sh -c 'sh -c \"echo \\$\\$; exec sleep 1000\" & sleep 1000' & sleep 1000",
}


@pytest.mark.parametrize("script", DESCENDANTS.values(), ids=DESCENDANTS)
def test_a_timeout_kills_the_whole_tree_and_nothing_else(sandbox: Sandbox, script: str) -> None:
    bystander = sandbox.start(["sleep", "1000"])

    with pytest.raises(CommandTimeout) as caught:
        sandbox.exec(script, timeout=0.4, grace=0.1)

    assert caught.value.timeout == 0.4
    assert not alive(sandbox, caught.value.result.stdout)
    assert alive(sandbox, bystander.pid)


def test_a_timeout_carries_the_output_so_far(sandbox: Sandbox) -> None:
    with pytest.raises(CommandTimeout) as caught:
        sandbox.exec("echo out; echo err >&2; sleep 1000", timeout=0.3)

    assert (caught.value.result.stdout, caught.value.result.stderr) == (b"out\n", b"err\n")
    assert caught.value.result.exit_code == -15
    assert "after timeout=0.3 s" in str(caught.value)


def test_a_timeout_is_punctual(sandbox: Sandbox) -> None:
    started = time.monotonic()
    with pytest.raises(CommandTimeout):
        sandbox.exec("trap '' TERM; while :; do :; done", timeout=0.3, grace=0.1)

    assert 0.3 < time.monotonic() - started < 0.3 + 0.1 + 0.5


def test_a_command_may_end_itself_within_the_grace(sandbox: Sandbox) -> None:
    with pytest.raises(CommandTimeout) as caught:
        sandbox.exec("trap 'echo tidied; exit 7' TERM; while :; do sleep 0.05; done", timeout=0.3, grace=10)

    assert (caught.value.result.exit_code, caught.value.result.stdout) == (7, b"tidied\n")


def test_no_timeout_is_no_limit_but_the_settings_hold_by_default(core: SandboxCore) -> None:
    core.settings, kept = type(core.settings)(workspace=core.settings.workspace, timeout=0.2), core.settings
    try:
        assert run(core.exec("sleep 0.4", timeout=None)).ok
        with pytest.raises(CommandTimeout):
            run(core.exec("sleep 1000"))
    finally:
        core.settings = kept


def test_cancelling_kills_the_whole_tree(core: SandboxCore, sandbox: Sandbox) -> None:
    async def cancelled() -> bytes:
        await core.exec("mkfifo begun", check=True)
        running = asyncio.create_task(core.exec("setsid sh -c 'echo $$ > begun; exec sleep 1000' & sleep 1000"))
        pid = await core.exec(["cat", "begun"])
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return pid.stdout

    assert not alive(sandbox, run(cancelled()))


def test_ctrl_c_kills_the_whole_tree_before_it_goes_on(sandbox: Sandbox) -> None:
    sandbox.exec("mkfifo begun", check=True)
    pids: list[bytes] = []

    def interrupt() -> None:
        pids.append(sandbox.exec(["cat", "begun"]).stdout)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        sandbox.exec("setsid sh -c 'echo $$ > begun; exec sleep 1000' & sleep 1000")
    thread.join()

    assert not alive(sandbox, pids[0])


# --- background children ---


def test_exec_returns_when_the_command_ends_though_a_child_holds_its_output(sandbox: Sandbox) -> None:
    result = sandbox.exec("sleep 1000 & echo $!", timeout=20)

    assert result.survivors
    assert alive(sandbox, result.stdout)


def test_what_the_command_wrote_is_whole_though_a_child_holds_its_output(sandbox: Sandbox) -> None:
    result = sandbox.exec("sleep 1000 & head -c 3000000 /dev/zero", timeout=20)

    assert len(result.stdout) == 3_000_000


def test_a_child_that_writes_on_and_on_is_not_blocked(sandbox: Sandbox) -> None:
    sandbox.exec("mkfifo done", check=True)

    sandbox.exec("(head -c 5000000 /dev/zero; echo end > done) &", output_limit=1000, check=False)

    assert sandbox.exec(["cat", "done"], timeout=20).stdout == b"end\n"


def test_wait_all_waits_for_children_and_has_their_output(sandbox: Sandbox) -> None:
    result = sandbox.exec("(sleep 0.2; echo child) & echo parent", wait_all=True)

    assert result.stdout == b"parent\nchild\n"
    assert result.stdout.total_bytes == 13
    assert not result.survivors


def test_wait_all_is_covered_by_the_timeout(sandbox: Sandbox) -> None:
    with pytest.raises(CommandTimeout) as caught:
        sandbox.exec("sleep 1000 & echo $!", wait_all=True, timeout=0.3)

    assert not alive(sandbox, caught.value.result.stdout)


def test_sweep_ends_what_runs_in_the_background(sandbox: Sandbox) -> None:
    pid = sandbox.exec("setsid sleep 1000 >/dev/null 2>&1 & echo $!").stdout

    assert sandbox.sweep() >= 1
    assert not alive(sandbox, pid)


def test_orphans_are_reaped(sandbox: Sandbox) -> None:
    result = sandbox.exec("(sh -c 'echo $$; exit 1' &)", wait_all=True)

    assert not sandbox.exec(f"test -e /proc/{int(result.stdout)}").ok


# --- what can't start ---


def test_a_program_that_is_missing(sandbox: Sandbox) -> None:
    with pytest.raises(CommandNotFound, match="no program 'no-such-program'"):
        sandbox.exec(["no-such-program", "x"])


def test_a_path_that_is_missing(sandbox: Sandbox) -> None:
    with pytest.raises(CommandNotFound, match=r"no program '\./missing'"):
        sandbox.exec(["./missing"])


@pytest.mark.parametrize("mode", ["644", "755"])
def test_a_file_that_is_no_program(sandbox: Sandbox, mode: str) -> None:
    sandbox.exec(f"printf '\\177no program' > file; chmod {mode} file", check=True)

    with pytest.raises(CommandNotExecutable, match=r"'\./file' can't be executed"):
        sandbox.exec(["./file"])


def test_a_directory_is_no_program(sandbox: Sandbox) -> None:
    with pytest.raises(CommandNotExecutable):
        sandbox.exec(["/tmp"])


def test_a_user_that_is_missing(sandbox: Sandbox) -> None:
    with pytest.raises(NoSuchUser, match="no user or group 'no-such-user'"):
        sandbox.exec(["true"], user="no-such-user")


def test_a_directory_that_is_missing(sandbox: Sandbox) -> None:
    with pytest.raises(NoSuchDirectory, match="missing"):
        sandbox.exec(["true"], cwd="missing")


@pytest.mark.parametrize("size", [200_000, 5 * MEBIBYTE])
def test_arguments_that_are_too_long(sandbox: Sandbox, size: int) -> None:
    with pytest.raises(ArgumentListTooLong):
        sandbox.exec(["true", "x" * size])


def test_a_supervisor_killed_from_inside(sandbox: Sandbox) -> None:
    with pytest.raises(CommandLost, match="killed its supervisor"):
        sandbox.exec("kill -9 $PPID; sleep 1000", timeout=20)

    assert sandbox.exec(["true"]).ok


def test_exit_code_126_is_the_commands_own(sandbox: Sandbox) -> None:
    assert sandbox.exec("exit 126").exit_code == 126


# --- many at once ---


def test_two_hundred_commands_at_once(core: SandboxCore) -> None:
    async def all_of_them() -> list[bytes]:
        results = await asyncio.gather(*(core.exec(f"echo {number}; sleep 0.5") for number in range(200)))
        return [bytes(result.stdout) for result in results]

    assert run(all_of_them()) == [b"%d\n" % number for number in range(200)]


def test_commands_from_many_threads(sandbox: Sandbox) -> None:
    with ThreadPoolExecutor(16) as threads:
        outputs = list(threads.map(lambda number: sandbox.exec(["echo", str(number)]).stdout, range(200)))

    assert outputs == [b"%d\n" % number for number in range(200)]


def test_hung_commands_delay_nothing(sandbox: Sandbox) -> None:
    for _ in range(50):
        sandbox.start("trap '' TERM; sleep 1000")

    assert sandbox.exec(["echo", "prompt"], timeout=5).stdout == b"prompt\n"


def test_a_flood_that_nobody_reads_delays_nothing(sandbox: Sandbox) -> None:
    flood = sandbox.start(["cat", "/dev/zero"])
    assert flood.stdout.read_some()

    assert sandbox.exec(["echo", "prompt"], timeout=5).stdout == b"prompt\n"


def test_queue_time_does_not_count_against_a_timeout(core: SandboxCore) -> None:
    async def many_short_ones() -> list[bool]:
        results = await asyncio.gather(*(core.exec(["sleep", "0.1"], timeout=3) for _ in range(150)))
        return [result.ok for result in results]

    assert all(run(many_short_ones()))


# --- start ---


def test_output_comes_while_the_process_runs(sandbox: Sandbox) -> None:
    with sandbox.start("read line; echo got $line; read line; echo and $line") as process:
        process.write(b"one\n")
        assert process.stdout.read_line() == b"got one\n"
        process.write(b"two\n")
        assert process.stdout.read_line() == b"and two\n"

        assert process.wait(timeout=20).exit_code == 0


def test_output_is_iterated_by_lines(sandbox: Sandbox) -> None:
    with sandbox.start("echo one; echo two >&2; printf 'three\n\nlast'") as process:
        assert list(process.stdout) == [b"one\n", b"three\n", b"\n", b"last"]
        assert list(process.stderr) == [b"two\n"]
        assert process.stdout.read_some() == b""


def test_a_line_without_end_comes_in_pieces(sandbox: Sandbox) -> None:
    with sandbox.start(["head", "-c", str(3 * MEBIBYTE), "/dev/zero"]) as process:
        pieces = list(process.stdout)

    assert sum(map(len, pieces)) == 3 * MEBIBYTE
    assert max(map(len, pieces)) <= 2 * MEBIBYTE


def test_both_streams_can_come_as_one(sandbox: Sandbox) -> None:
    with sandbox.start("echo one; echo two >&2; echo three", merge_stderr=True) as process:
        assert list(process.stdout) == [b"one\n", b"two\n", b"three\n"]


def test_stdin_can_be_closed(sandbox: Sandbox) -> None:
    with sandbox.start(["cat"]) as process:
        process.write(b"all")
        process.close_stdin()
        process.close_stdin()

        assert list(process.stdout) == [b"all"]


def test_writing_to_a_process_that_reads_no_more_is_a_broken_pipe(sandbox: Sandbox) -> None:
    with sandbox.start("exec 0<&-; echo closed; sleep 1000") as process:
        assert process.stdout.read_line() == b"closed\n"

        with pytest.raises(BrokenPipeError):
            process.write(bytes(4 * MEBIBYTE))


@pytest.mark.parametrize("signal_name", ["SIGUSR1", "usr1", 10])
def test_a_signal_by_name_or_number(sandbox: Sandbox, signal_name: str | int) -> None:
    with sandbox.start("trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.05; done") as process:
        assert process.stdout.read_line() == b"ready\n"
        process.send_signal(signal_name)

        assert process.stdout.read_line() == b"caught\n"
        assert process.wait(timeout=20).exit_code == 5


def test_a_signal_to_the_whole_tree(sandbox: Sandbox) -> None:
    with sandbox.start("sh -c 'echo ready; exec sleep 1000' & wait") as process:
        assert process.stdout.read_line() == b"ready\n"
        process.send_signal("KILL", tree=True)

        assert process.wait(timeout=20).exit_code == -9
        assert process.stdout.read_some() == b""


@pytest.mark.parametrize("unknown", ["SIGNOPE", "", 0, 65, -9])
def test_a_signal_that_does_not_exist_is_refused(sandbox: Sandbox, unknown: str | int) -> None:
    with sandbox.start(["sleep", "1000"]) as process, pytest.raises(ValueError, match="expected a name such as"):
        process.send_signal(unknown)


def test_waiting_can_be_bounded_and_goes_on_later(sandbox: Sandbox) -> None:
    with sandbox.start("read line; exit 6") as process:
        with pytest.raises(ProcessStillRunning, match="still running"):
            process.wait(timeout=0.05)
        assert not process.finished
        process.write(b"\n")

        end = process.wait(timeout=20)
        assert process.finished

    assert (end.exit_code, end.stdout_bytes, end.survivors) == (6, 0, False)


def test_kill_ends_the_whole_tree(sandbox: Sandbox) -> None:
    with sandbox.start("setsid sh -c 'trap \"\" TERM; echo $$; exec sleep 1000' & sleep 1000") as process:
        pid = process.stdout.read_line()
        process.kill()

        assert not alive(sandbox, pid)
        assert process.wait().exit_code == -9


def test_kill_ends_a_process_whose_output_nobody_reads(sandbox: Sandbox) -> None:
    with sandbox.start(["cat", "/dev/zero"]) as process:
        assert process.stdout.read_some()
        process.kill()

        assert process.wait().exit_code == -9
    assert sandbox.exec(["true"]).ok


def test_leaving_a_process_whose_output_nobody_reads(sandbox: Sandbox) -> None:
    with sandbox.start(["cat", "/dev/zero"]) as process:
        assert process.stdout.read_some()

    assert sandbox.exec(["true"]).ok


def test_terminate_leaves_time_to_tidy_up(sandbox: Sandbox) -> None:
    with sandbox.start("trap 'echo tidied; exit 3' TERM; echo ready; while :; do sleep 0.05; done") as process:
        process.stdout.read_line()
        process.terminate(grace=20)

        assert process.stdout.read_line() == b"tidied\n"
        assert process.wait().exit_code == 3


def test_the_context_of_a_process_leaves_nothing_behind(sandbox: Sandbox) -> None:
    with sandbox.start("(setsid sh -c 'echo $$; exec sleep 1000' &); exit 0") as process:
        pid = process.stdout.read_line()
        process.wait()
        assert alive(sandbox, pid)

    assert not alive(sandbox, pid)


def test_a_process_that_can_not_start(sandbox: Sandbox) -> None:
    with pytest.raises(CommandNotFound):
        sandbox.start(["no-such-program"])
