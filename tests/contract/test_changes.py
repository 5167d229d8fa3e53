"""What changes() promises, on every engine: what differs from a snapshot, path by path, and nothing else."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

import pytest

from pytest_sandbox import Changes, FileKind, FileOperationError, Sandbox, Snapshot
from pytest_sandbox.agent.wire import BodyReader, BodyWriter, Kind
from pytest_sandbox.changes import ChangeKind
from pytest_sandbox.core.sandbox import SandboxCore
from pytest_sandbox.core.transfer import file_errors
from pytest_sandbox.errors import NothingToCompareWith
from pytest_sandbox.loop import run
from pytest_sandbox.models import SandboxSettings

from .test_files import ODD_NAMES
from .test_workspaces import POPULATE, engine_of, root_as_it_was

__all__ = ["engine_of", "root_as_it_was"]

WHAT = {
    "content": ("echo changed > two", Changes(modified={"two", "d/sub/linked"})),
    "content of equal size and time": (
        "cp -p two /tmp/$$; printf 'TWO\\n' > two; touch -r /tmp/$$ two; rm /tmp/$$",
        Changes(modified={"two", "d/sub/linked"}),
    ),
    "content of equal size": ("printf '#!/bin/sh\\necho RAN\\n' > run", Changes(modified={"run"})),
    "truncated": (": > large", Changes(modified={"large"})),
    "mode": ("chmod 600 run", Changes(modified={"run"})),
    "mode of a directory": ("chmod 700 d/empty", Changes(modified={"d/empty"})),
    "mode of the workspace": ("chmod 711 .", Changes(modified={"."})),
    "target": ("ln -sf /elsewhere link", Changes(modified={"link"})),
    "kind": ("rm two && mkdir two", Changes(modified={"two"})),
    "directory into file": (
        "rm -rf d && echo > d",
        Changes(modified={"d"}, removed={"d/empty", "d/one", "d/sub", "d/sub/linked"}),
    ),
    "added": ("mkdir -p x/y && touch x/y/z", Changes(added={"x", "x/y", "x/y/z"})),
    "removed": ("rm -rf d/sub", Changes(removed={"d/sub", "d/sub/linked"})),
    "renamed": ("mv large other", Changes(added={"other"}, removed={"large"})),
    "another name": ("ln large d/again", Changes(added={"d/again"})),
    "a name of its own": ("cp -p two t && mv t two", Changes()),
    "hole filled": (
        "dd if=/dev/urandom of=sparse bs=1 count=5 seek=5 conv=notrunc 2>/dev/null",
        Changes(modified={"sparse"}),
    ),
    "holes filled by zeros": ("cat sparse > /tmp/$$; cat /tmp/$$ > sparse; rm /tmp/$$", Changes()),
    "file into fifo": ("rm run && mkfifo run", Changes(removed={"run"})),
    "a fifo": ("mkfifo fifo", Changes()),
    "touched": ("touch two d link . && touch -d @77 run", Changes()),
    "written again with the same content": ("cp run t; cat t > run; rm t", Changes()),
    "replaced by an equal file": ("cp -p run t && mv t run", Changes()),
    "added and removed": ("touch x && rm x", Changes()),
    "changed and changed back": ("chmod 600 run; chmod 4755 run", Changes()),
    "nothing": (":", Changes()),
}


@pytest.fixture
def populated(sandbox: Sandbox) -> Sandbox:
    sandbox.exec(POPULATE, check=True)
    return sandbox


@pytest.mark.parametrize("what", WHAT)
def test_changes_tells(populated: Sandbox, what: str) -> None:
    script, expected = WHAT[what]
    before = populated.snapshot()

    populated.exec(script, check=True)

    assert populated.changes(before) == expected
    assert populated.changes(before, paranoid=True) == expected
    assert bool(populated.changes(before)) == bool(expected)


def test_changes_are_sets_that_equal_plain_ones(sandbox: Sandbox) -> None:
    sandbox.write_text("a.txt", "1")
    sandbox.write_text("b.txt", "1")
    before = sandbox.snapshot()

    sandbox.write_text("a.txt", "2")
    sandbox.write_text("c.txt", "2")
    sandbox.remove("b.txt")

    changes = sandbox.changes(before)
    assert changes.modified == {"a.txt"}
    assert changes.added == {"c.txt"}
    assert changes.removed == {"b.txt"}
    assert [(change.path, change.kind) for change in changes] == [
        ("a.txt", ChangeKind.MODIFIED),
        ("b.txt", ChangeKind.REMOVED),
        ("c.txt", ChangeKind.ADDED),
    ]


def test_changes_say_what_changed(populated: Sandbox) -> None:
    populated.chown("run", "0:0")
    before = populated.snapshot()

    populated.exec("chmod 600 run; echo x >> run; ln -sf there link; rm -rf d/empty; echo > d/empty", check=True)
    populated.chown("run", "12:34")

    told = {change.path: change for change in populated.changes(before)}
    assert told["run"].facts == ("content", "mode 755 → 600", "owner 0:0 → 12:34")
    assert told["link"].facts == ("target 'd/one' → 'there'",)
    assert told["d/empty"].facts == ("directory → file",)
    assert (told["d/empty"].before, told["d/empty"].after) == (FileKind.DIRECTORY, FileKind.FILE)


def test_a_renamed_file_is_recognised_by_its_content(sandbox: Sandbox) -> None:
    sandbox.exec("mkdir old; for i in 1 2 3; do echo $i > old/$i; done; touch old/empty", check=True)
    before = sandbox.snapshot()

    sandbox.exec("mv old new; echo other > new/2", check=True)

    changes = sandbox.changes(before)
    assert changes.renamed == {"old/1": "new/1", "old/3": "new/3"}
    assert changes.removed == {"old", "old/1", "old/2", "old/3", "old/empty"}


def test_the_diff_of_a_text(sandbox: Sandbox) -> None:
    sandbox.write_text("poem", "".join(f"line {number}\n" for number in range(1, 21)))
    sandbox.write_bytes("image", b"\0\1")
    before = sandbox.snapshot()

    sandbox.exec("sed -i s/15/XV/ poem; echo >> image; printf new > added; chmod 700 poem", check=True)

    changes = sandbox.changes(before)
    assert changes.diff() == (
        "--- /dev/null\n+++ b/added\n@@ -0,0 +1 @@\n+new\n\\ No newline at end of file\n"
        "Binary files a/image and b/image differ (2 and 3 bytes)\n"
        "--- a/poem\n+++ b/poem\n@@ -12,7 +12,7 @@\n line 12\n line 13\n line 14\n-line 15\n"
        "+line XV\n line 16\n line 17\n line 18\n"
    )


def test_names_of_any_bytes_are_told_of(sandbox: Sandbox) -> None:
    for name in ODD_NAMES:
        sandbox.write_bytes(name, b"1")
    before = sandbox.snapshot()

    for name in ODD_NAMES:
        sandbox.write_bytes(name, b"2")

    changes = sandbox.changes(before)
    assert changes.modified == set(ODD_NAMES)
    assert (str(changes) + changes.diff()).encode()  # no lone surrogate
    assert "\x1b" not in str(changes) + changes.diff()


def test_by_default_since_the_last_restore(sandbox: Sandbox) -> None:
    sandbox.write_text("a", "1")
    before = sandbox.snapshot()
    sandbox.write_text("b", "1")
    sandbox.restore(before)

    sandbox.write_text("c", "1")
    assert sandbox.changes() == Changes(added={"c"})
    sandbox.reset(before)

    assert sandbox.changes() == Changes()


def test_a_sandbox_that_was_never_brought_to_a_snapshot_has_nothing_to_compare_with(fresh: Sandbox) -> None:
    fresh.write_text("a", "1")

    with pytest.raises(NothingToCompareWith, match=r"changes\(since=before\)"):
        fresh.changes()


def test_changes_since_a_snapshot_of_another_sandbox(
    populated: Sandbox, engine_of: Callable[[SandboxSettings], Sandbox]
) -> None:
    other = engine_of(populated.settings)
    other.exec(POPULATE, check=True)
    other.hydrate(populated.persist())
    other.write_text("added", "1")

    assert other.changes(populated.snapshot()) == Changes(added={"added"})


def test_ephemeral_paths_are_not_told_of(fresh: Sandbox, engine_of: Callable[[SandboxSettings], Sandbox]) -> None:
    sandbox = engine_of(replace(fresh.settings, ephemeral=("*.log", "build")))
    before = sandbox.snapshot()

    sandbox.exec("mkdir build; touch build/x a.log b", check=True)

    assert sandbox.changes(before) == Changes(added={"b"})


def test_extended_attributes_count(sandbox: Sandbox) -> None:
    if sandbox.exec("command -v setfattr").exit_code:
        pytest.skip("the image has no setfattr")
    sandbox.write_text("f", "")
    before = sandbox.snapshot()
    if sandbox.exec("setfattr -n user.color -v blue f").exit_code:
        pytest.skip("the file system below the workspace has no user.* attributes")

    [change] = sandbox.changes(before)

    assert change.facts == ("extended attributes",)


def test_asking_changes_nothing(populated: Sandbox) -> None:
    before = populated.snapshot()
    populated.exec("rm -rf d; echo > two", check=True)
    now = populated.persist()

    populated.changes(before)

    assert populated.persist().sha256 == now.sha256
    populated.restore(before)
    assert populated.persist().sha256 == before.archive.sha256


def test_only_what_was_touched_crosses_the_stream(populated: Sandbox, core: SandboxCore) -> None:
    before = populated.snapshot()
    populated.exec("echo x > run", check=True)

    part, gone = run(fetch(core, before))

    assert part < 4096 < before.archive.size
    assert gone == b""


def test_the_agent_refuses_an_index_that_it_does_not_have(sandbox: Sandbox, core: SandboxCore) -> None:
    with pytest.raises(FileOperationError) as refused:
        run(fetch(core, None))

    assert refused.value.errno == errno.ENOENT


async def fetch(core: SandboxCore, since: Snapshot | None) -> tuple[int, bytes]:
    """Size of the archive that CHANGES gives, and what comes after it."""
    index = 9999 if since is None else core._indexes.of(since) or 0
    body = BodyWriter().str(b"").str(core._root).u32(index).u32(0).bytes()
    received = b""
    with file_errors("."):
        async with core.channel(Kind.CHANGES, body) as channel:
            while chunk := await channel.receive():
                received += chunk
            result = BodyReader(await channel.result())
    size = result.u64()
    return size, received[size:]
