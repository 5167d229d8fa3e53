#!/usr/bin/env python3
"""Hands papers from person to person: `dropbox give bob FILE`, `dropbox take`. They belong to the box's group."""

import os
import pwd
import sys
from pathlib import Path

BOX = Path("box")


def give(receiver, paper):
    pwd.getpwnam(receiver)
    target = BOX / f"{receiver}-{Path(paper).name}"
    # Opened by us, with the rights of who called: nobody gives away what they can't read.
    text = Path(paper).read_text()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o660)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def take():
    me = pwd.getpwuid(os.getuid()).pw_name
    for paper in sorted(BOX.glob(f"{me}-*")):
        sys.stdout.write(f"{paper.name.partition('-')[2]}: {paper.read_text()}")
        paper.unlink()


{"give": give, "take": take}[sys.argv[1]](*sys.argv[2:])
