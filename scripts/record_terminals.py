"""Make tests/unit/core/recordings: what real programs write to a terminal, and what tmux then shows.

    python scripts/record_terminals.py [name …]

Each program runs in a tmux of its own, in a directory with made-up files, as root without network, other processes
and this machine's name. For each: NAME.stream, the bytes it wrote; NAME.screen, tmux's screen as text; NAME.styled,
the same with its colours; NAME.json, size, cursor and which screen it is. Needs Linux, root, Debian's tmux, vim, less,
nano, htop, procps, bash, python3, whiptail and git.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "tests" / "unit" / "core" / "recordings"
ROWS, COLUMNS = 24, 80

TEXT = "".join(f"{number:4} the quick brown fox jumps over the lazy dog, größer 漢字 é\n" for number in range(1, 201))
PROGRAM = '''\
"""A module."""
import sys


def main(names: list[str]) -> int:
    for name in names:  # each of them
        print(f"hello {name!r}", 42, None)
    return 0


sys.exit(main(sys.argv[1:]))
'''
PROMPT = r"PS1='\[\e[1;32m\]user@sandbox\[\e[0m\]:\[\e[34m\]\w\[\e[0m\]$ '"
COLORS = (
    r"""for i in 0 1 2 3 4 5 6 7; do printf '\e[3%dm%d\e[9%dm%d\e[4%dm \e[0m' $i $i $i $i $i; done; """
    r"""printf '\e[38;5;208morange\e[48;2;1;2;3mrgb\e[0m \e[1mb\e[2md\e[3mi\e[4mu\e[5mk\e[7mr\e[9ms\e[0m\n'"""
)

# name: the command, and the keys in turn, each with a text that shows when the program has taken it
PROGRAMS: dict[str, tuple[str, list[tuple[list[str], str]]]] = {
    "bash": (
        "bash --noprofile --rcfile bashrc",
        [
            ([], "$"),
            (["ls --color=always; cat text.txt | head -30", "Enter"], "30 the"),
            (["clear", "Enter"], "$"),
            ([COLORS, "Enter"], "orangergb"),
            (["echo abcdef", "Left", "Left", "BSpace", "漢字", "C-a", "C-k", "C-y", "Enter"], "abc漢字ef"),
            (["for i in $(seq 40); do echo line $i; done", "Enter"], "line 40"),
            (["printf '\\e[5;10r\\e[10;1H\\n\\n\\n\\e[r\\e[20;1H'", "Enter"], "line 1"),
            (["echo " + "wraps " * 20, "Enter"], "wraps wraps"),
        ],
    ),
    "vim": (
        "vim -u NONE -N -c 'syntax on' -c 'set nu ruler showcmd hlsearch' program.py",
        [
            ([], "main"),
            (["jjo", "added 漢字 line", "Escape"], "added"),
            (["/name", "Enter"], "/name"),
            ([":split text.txt", "Enter"], "lazy dog"),
            (["20", "C-e"], "21"),
            (["dd", "p", ":vsplit", "Enter"], "10%"),
            (["G", "C-u"], "dog"),
        ],
    ),
    "vim-quit": (
        "sh -c 'echo before; vim -u NONE -N text.txt; echo after; sleep 1000'",
        [([], "quick"), ([":q!", "Enter"], "after")],
    ),
    "less": (
        "less -R text.txt",
        [
            ([], "text.txt"),
            (["Space"], "40 the"),
            (["k", "k", "b"], "1 the"),
            (["/dog", "Enter"], "dog"),
            (["50g"], "50 the"),
        ],
    ),
    "nano": (
        "nano --ignorercfiles text.txt",
        [
            ([], "Help"),
            (["hello 漢字", "Enter", "Enter", "Up"], "hello"),
            (["C-w"], "Search"),
            (["fox", "Enter"], "fox"),
            (["C-k", "C-k", "C-v"], "20 the"),
        ],
    ),
    "top": ("top -d 100", [([], "PID"), (["z", "x"], "PID"), (["f"], "Fields"), (["q"], "PID")]),
    "htop": ("htop -d 100", [([], "F10"), (["F5"], "F10"), (["Down", "Up"], "F10"), (["F2"], "Setup")]),
    "python": (
        "python3 -q",
        [
            ([], ">>>"),
            (["1 + 1", "Enter"], "2"),
            (["print('x' * 100 + 'é漢')", "Enter"], "é漢"),
            (["1/0", "Enter"], "ZeroDiv"),
        ],
    ),
    "whiptail": (
        "whiptail --menu 'Choose one' 15 50 5 a first b second c third",
        [([], "third"), (["Down", "Down", "Tab"], "third")],
    ),
    "git": (
        (
            "sh -c 'git init -q . && git add -A && git -c user.name=a -c user.email=a@b commit -qm one"
            " && git mv text.txt t.txt && echo x >> t.txt && git --no-pager diff --color HEAD; sleep 1000'"
        ),
        [([], "+x")],
    ),
}


class Tmux:
    """A tmux server of its own, with one pane."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def __call__(self, *arguments: str) -> str:
        command = ["tmux", "-S", str(self._socket), "-f", "/dev/null", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def wait_until_shown(self, text: str) -> None:
        """Poll, as tmux tells nobody: until the text is there and nothing has moved for half a second."""
        deadline = time.monotonic() + 20
        last, since = "", time.monotonic()
        while time.monotonic() < deadline:
            now = self("capture-pane", "-p", "-e") + self("display-message", "-p", "#{cursor_x},#{cursor_y}")
            if now != last:
                last, since = now, time.monotonic()
            elif text in self("capture-pane", "-p") and time.monotonic() - since > 0.5:
                return
            time.sleep(0.05)
        raise SystemExit(f"{text!r} did not show:\n{self('capture-pane', '-p')}")


def record(name: str) -> None:
    command, steps = PROGRAMS[name]
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch, "home")
        home.mkdir()
        (home / "text.txt").write_text(TEXT)
        (home / "program.py").write_text(PROGRAM)
        (home / "bashrc").write_text(PROMPT)
        stream = FOLDER / f"{name}.stream"
        stream.unlink(missing_ok=True)
        tmux = Tmux(Path(scratch, "socket"))
        inside = Path(scratch, "command")
        # The directory has the same short name for every recording, and the pane waits until its output is recorded.
        inside.write_text(
            f"tmux -S {scratch}/socket wait-for go\nhostname sandbox\nmount -t tmpfs none /mnt && cp -r {home}/. /mnt\n"
            f"cd /mnt && export HOME=/mnt LANG=C.UTF-8 TERM=xterm-256color LC_ALL=C.UTF-8 && unset TMUX TMUX_PANE\n"
            f"exec {command}\n"
        )
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}
        isolated = f"exec unshare --fork --pid --mount --mount-proc --uts --net bash {inside}"
        start = ["tmux", "-S", f"{scratch}/socket", "-u", "-f", "/dev/null", "new-session", "-d"]
        subprocess.run([*start, "-x", str(COLUMNS), "-y", str(ROWS), isolated], env=environment, check=True)
        try:
            tmux("set-option", "-g", "status", "off")
            tmux("resize-window", "-x", str(COLUMNS), "-y", str(ROWS))
            tmux("pipe-pane", f"cat > {stream}")
            tmux("wait-for", "-S", "go")
            for keys, shows in steps:
                if keys:
                    tmux("send-keys", *keys)
                tmux.wait_until_shown(shows)
            tmux("pipe-pane")  # ends the recording
            facts = tmux("display-message", "-p", "#{cursor_y} #{cursor_x} #{cursor_flag} #{alternate_on}").split()
            (FOLDER / f"{name}.screen").write_text(tmux("capture-pane", "-p"))
            (FOLDER / f"{name}.styled").write_text(tmux("capture-pane", "-p", "-e", "-N"))
        finally:
            tmux("kill-server")
    row, column, visible, alternate = map(int, facts)
    described = {
        "rows": ROWS,
        "columns": COLUMNS,
        "cursor": [row, min(column, COLUMNS - 1), bool(visible)],
        "alternate": bool(alternate),
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(described) + "\n")
    print(f"{name}: {stream.stat().st_size} bytes")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for chosen in sys.argv[1:] or PROGRAMS:
        record(chosen)
