"""Building and running a C project: what the compiler says, how programs crash, hang, and eat memory.

Shown here: a project uploaded and built once for the module; signals as negative exit codes; a timeout that leaves no
process behind; the CPU time and memory of a command; limits of the sandbox itself, set by a marker.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from pytest_sandbox import Baseline, CommandFailed, CommandTimeout, Sandbox

PROJECT = Path(__file__).parent / "project"
ROOT = Path(__file__).parents[2]
PROSE = "\n".join(path.read_text() for path in (ROOT / "LICENSE", ROOT / "README.md")).encode()


@pytest.fixture(scope="module")
def sandbox_baseline() -> Baseline:
    return Baseline(trees={".": PROJECT}, commands=["make clean", "make -j2"])


def test_the_projects_own_check_passes(sandbox: Sandbox) -> None:
    sandbox.exec("make check", check=True)


def test_nothing_is_rebuilt_that_is_up_to_date(sandbox: Sandbox) -> None:
    """The restored baseline has its exact times, to the nanosecond: make trusts it."""
    assert "up to date" in sandbox.exec("make", check=True).stdout.text


def test_a_changed_header_rebuilds_what_depends_on_it(sandbox: Sandbox) -> None:
    sandbox.write_text("table.h", "/* changed */\n", append=True)

    result = sandbox.exec("make", check=True)

    assert {"wordfreq.o", "table.o"} == set(re.findall(r"-o (\S+\.o)", result.stdout.text))


def test_it_counts_as_python_does(sandbox: Sandbox) -> None:
    result = sandbox.exec(["./wordfreq"], stdin=PROSE, check=True)

    counted = {word: int(count) for count, word in (line.split() for line in result.stdout.text.splitlines())}
    assert counted == Counter(word.decode() for word in re.findall(rb"[a-z0-9]+", PROSE.lower()))


def test_a_compile_error_names_file_and_line(sandbox: Sandbox) -> None:
    source = sandbox.read_text("wordfreq.c")
    sandbox.write_text("wordfreq.c", source.replace("int c;", "int c"))

    with pytest.raises(CommandFailed) as failed:
        sandbox.exec("make", check=True)

    assert failed.value.result.exit_code == 2
    assert re.search(r"^wordfreq\.c:\d+:\d+: error: expected", failed.value.result.stderr.text, re.MULTILINE)


def test_a_crash_is_a_negative_exit_code(sandbox: Sandbox) -> None:
    sandbox.write_text("crash.c", "int main(void) { return *(volatile int *)0; }")

    sandbox.exec("make crash", check=True)

    result = sandbox.exec(["./crash"])

    assert result.exit_code == -11  # SIGSEGV


def test_the_sanitizer_finds_what_only_sometimes_crashes(sandbox: Sandbox) -> None:
    source = sandbox.read_text("wordfreq.c")
    sandbox.write_text("wordfreq.c", source.replace("word[LONGEST + 1]", "word[LONGEST - 9]"))
    sandbox.exec("make clean && make CFLAGS='-O1 -g -fsanitize=address -Wno-array-bounds'", check=True)

    result = sandbox.exec(["./wordfreq"], stdin=b"a" * 300)

    assert "stack-buffer-overflow" in result.stderr.text


def test_an_endless_loop_ends_at_its_timeout(sandbox: Sandbox) -> None:
    sandbox.write_text("spin.c", '#include <stdio.h>\nint main(void) { puts("spinning"); fflush(stdout); for (;;); }')
    sandbox.exec("make spin", check=True)

    with pytest.raises(CommandTimeout) as timed_out:
        sandbox.exec("./spin & ./spin & wait", timeout=0.5)

    # What it had said is kept, and what it had started is gone.
    assert timed_out.value.result.stdout.text.splitlines() == ["spinning", "spinning"]
    assert sandbox.sweep() == 0


@pytest.mark.sandbox(memory="64m")
def test_a_program_without_bounds_ends_at_the_sandboxes_memory(sandbox: Sandbox) -> None:
    sandbox.write_text(
        "eat.c",
        "#include <stdlib.h>\n#include <string.h>\nint main(void) { for (;;) memset(malloc(1 << 20), 1, 1 << 20); }",
    )
    sandbox.exec("gcc -O0 -o eat eat.c", check=True)

    result = sandbox.exec(["./eat"])

    assert result.exit_code == -9  # the kernel's out-of-memory killer; the sandbox lives on
    assert sandbox.exec("make check").ok


def test_ten_times_the_text_does_not_take_ten_times_the_memory(sandbox: Sandbox) -> None:
    once = sandbox.exec(["./wordfreq"], stdin=PROSE, check=True)

    tenfold = sandbox.exec(["./wordfreq"], stdin=10 * PROSE, check=True)

    assert tenfold.usage.peak_bytes < 2 * once.usage.peak_bytes
