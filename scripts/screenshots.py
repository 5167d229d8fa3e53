"""Make the pictures in docs/screenshots: real programs in a sandbox, as Terminal.screenshot() shows them.

    python scripts/screenshots.py

The image is that of SANDBOX_IMAGE, with Debian's nano and git.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pytest_sandbox import PullPolicy, Sandbox, SandboxSettings

FOLDER = Path(__file__).parents[1] / "docs" / "screenshots"
ROWS, COLUMNS = 18, 80

GREET = '''\
"""Says hello, in several languages."""

GREETINGS = {
    "de": "Grüß dich",
    "en": "Hello",
    "ja": "こんにちは",
}


def greet(name: str, language: str = "en") -> str:
    return f"{GREETINGS[language]}, {name}!"
'''


def edit(sandbox: Sandbox) -> None:
    """A file in nano, with its own colours for Python, as it asks whether to save."""
    sandbox.write_text("greet.py", GREET)
    command = ["nano", "--linenumbers", "--rcfile=/usr/share/nano/python.nanorc", "greet.py"]
    with sandbox.terminal(command, rows=ROWS, columns=COLUMNS, env={"LANG": "C.UTF-8"}) as nano:
        nano.wait_for_screen("Help")
        nano.press(*["down"] * 4, "end", "enter")
        nano.send('    "fr": "Bonjour",')
        nano.wait_for_screen("Bonjour")
        nano.press("ctrl-x")
        nano.wait_for_screen("Save modified buffer?")
        nano.screenshot(FOLDER / "nano.svg")


def history(sandbox: Sandbox) -> None:
    """What git says of a branch that was merged."""
    sandbox.exec(
        """
        exec >&2; set -e
        git init -q -b main . && git config user.name Someone && git config user.email someone@example.org
        commit() { git commit -q --allow-empty -m "$1"; }
        commit 'Greet in English' && git switch -q -c german && commit 'Greet in German' && commit 'Say it politely'
        git switch -q main && commit 'Test the greeting' && git merge -q --no-ff -m 'Merge branch german' german
        git tag v1 && commit 'Greet in Japanese: こんにちは'
        """,
        env={"GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z"},
        check=True,
    )
    environment = {"LANG": "C.UTF-8", "PS1": r"\[\e[32m\]\w\[\e[0m\]$ ", "HISTFILE": ""}
    with sandbox.terminal(["bash", "--norc"], rows=10, columns=COLUMNS, env=environment) as shell:
        shell.wait_for_screen("$")
        shell.sendline("git --no-pager log --graph --oneline --color")
        shell.wait_for_screen(re.compile(r"Greet in English\n.*\$"))
        shell.screenshot(FOLDER / "git.svg")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    settings = SandboxSettings(image=os.environ.get("SANDBOX_IMAGE", "pytest-sandbox/debian"), pull=PullPolicy.NEVER)
    for picture in (edit, history):
        with Sandbox.create(settings) as sandbox:
            picture(sandbox)
            print(f"{picture.__name__}: done")


if __name__ == "__main__":
    main()
