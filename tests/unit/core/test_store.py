"""The store: what is kept is whole or made again, made by one process at a time, and bounded."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_sandbox.core.archive import Archive, Entry
from pytest_sandbox.core.spool import IN_MEMORY, Spool
from pytest_sandbox.core.store import DAY, Kept, Store
from pytest_sandbox.errors import ArchiveError

KEY, OTHER = "0a" * 32, "0b" * 32


def archive(content: bytes = b"content") -> Archive:
    return Archive.build([Entry("."), Entry("file", content)])


class Making:
    """Makes an archive, and counts how often."""

    def __init__(self, content: bytes = b"content", **facts: str) -> None:
        self.content = content
        self.facts = facts
        self.times = 0

    def __call__(self) -> Kept:
        self.times += 1
        return Kept(archive(self.content), self.facts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(folder: Path, said: list[str]) -> Store:
    return Store(folder, said.append)


def files(folder: Path, of: str) -> list[Path]:
    return sorted((folder / of).iterdir())


def whole(kept: Kept) -> Archive:
    assert kept.archive is not None
    return kept.archive


def content(kept: Kept) -> bytes:
    return b"".join(whole(kept).content(whole(kept).members()[-1]))


def unused_for(folder: Path, key: str, seconds: float) -> None:
    path = folder / "keys" / key
    before = path.stat().st_mtime - seconds
    os.utime(path, (before, before))


# --- keeping ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, IN_MEMORY + 1])
def test_what_was_made_once_is_found_by_a_later_run(folder: Path, said: list[str], size: int) -> None:
    making = Making(bytes(size), image="sha256:1")
    first = Store(folder, said.append).obtain(KEY, "baseline", making)

    again = Store(folder, said.append).obtain(KEY, "baseline", making)

    assert making.times == 1
    assert whole(again).sha256 == whole(first).sha256
    assert whole(again).open().read() == whole(first).open().read()
    assert again.facts == {"image": "sha256:1"}
    assert said == []


def test_files_are_for_this_user_only(store: Store, folder: Path) -> None:
    store.obtain(KEY, "baseline", Making())

    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}
    folders = {stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")] if path.is_dir()}
    assert (modes, folders) == ({0o600}, {0o700})
    assert files(folder, "partial") == []


def test_equal_archives_are_kept_once(store: Store, folder: Path) -> None:
    store.obtain(KEY, "one", Making())
    store.obtain(OTHER, "other", Making())

    assert len(files(folder, "objects")) == 1
    assert len(files(folder, "keys")) == 2


def test_what_is_not_usable_any_more_is_made_again(store: Store) -> None:
    making = Making()
    store.obtain(KEY, "baseline", making)

    store.obtain(KEY, "baseline", making, usable=lambda _: False)

    assert making.times == 2


def test_that_there_is_nothing_to_keep_is_kept(store: Store, folder: Path) -> None:
    found = [store.obtain(KEY, "baseline", lambda: Kept(None, {"why": "said"})) for _ in range(2)]
    making = Making()

    assert store.obtain(KEY, "baseline", making) == found[0] == found[1] == Kept(None, {"why": "said"})
    assert making.times == 0
    store.prune()
    assert [path.name for path in files(folder, "keys")] == [KEY]
    Store(folder, print, unused_limit=-DAY).prune()
    assert files(folder, "keys") == []


def test_a_failure_is_raised_and_not_kept(store: Store, folder: Path) -> None:
    def fail() -> Kept:
        raise LookupError("no compiler")

    with pytest.raises(LookupError):
        store.obtain(KEY, "baseline", fail)

    making = Making()
    store.obtain(KEY, "baseline", making)
    assert making.times == 1


def test_an_archive_that_no_sandbox_would_take_is_not_kept(store: Store, folder: Path) -> None:
    def lie() -> Kept:
        hostile = archive().open().read().replace(b"file\0\0\0\0\0", b"../../../")
        return Kept(_unchecked(hostile))

    with pytest.raises(ArchiveError):
        store.obtain(KEY, "baseline", lie)

    assert not (folder / "keys").exists()


def _unchecked(content: bytes) -> Archive:
    spool = Spool()
    spool.append(content)
    return Archive(spool, hashlib.sha256(content).hexdigest())


# --- damage -----------------------------------------------------------------------------------------------------------


class MakingSmall(Making):
    """For tests that go through an archive byte by byte."""

    def __call__(self) -> Kept:
        self.times += 1
        return Kept(Archive.build([Entry("directory")]))


def test_a_flip_of_any_byte_is_noticed_and_made_good(store: Store, folder: Path, said: list[str]) -> None:
    making = MakingSmall()
    store.obtain(KEY, "baseline", making)
    (path,) = files(folder, "objects")
    untouched = path.read_bytes()

    for place in range(len(untouched)):
        making.times = 0
        said.clear()
        path.write_bytes(untouched[:place] + bytes([untouched[place] ^ 1]) + untouched[place + 1 :])

        kept = store.obtain(KEY, "baseline", making)

        assert making.times == 1, place
        assert kept.archive is not None
        assert kept.archive.open().read() == untouched
        assert len(said) == 1
        assert path.read_bytes() == untouched


def test_a_file_cut_at_any_place_is_noticed_and_made_good(store: Store, folder: Path) -> None:
    making = MakingSmall()
    store.obtain(KEY, "baseline", making)
    (path,) = files(folder, "objects")
    untouched = path.read_bytes()

    for length in range(len(untouched)):
        making.times = 0
        path.write_bytes(untouched[:length])

        store.obtain(KEY, "baseline", making)

        assert making.times == 1, length
    path.write_bytes(untouched + b"\0")
    store.obtain(KEY, "baseline", making)
    assert making.times == 2


def test_a_flip_of_any_byte_of_a_record_does_no_harm(store: Store, folder: Path) -> None:
    making = Making()
    store.obtain(KEY, "baseline", making)
    path = folder / "keys" / KEY
    untouched = path.read_bytes()

    for place in range(len(untouched)):
        path.write_bytes(untouched[:place] + bytes([untouched[place] ^ 1]) + untouched[place + 1 :])

        assert content(store.obtain(KEY, "baseline", making)) == b"content"


@pytest.mark.parametrize(
    "record",
    [b"", b"[]", b"{}", b"null", b'{"key": 1}', b'{"key": "%s", "sha256": "../../../etc/passwd", "facts": {}}'],
    ids=["empty", "list", "nothing in it", "null", "numbers", "a path"],
)
def test_a_record_changed_by_hand_is_dropped_with_a_warning(
    store: Store, folder: Path, said: list[str], record: bytes
) -> None:
    making = Making()
    store.obtain(KEY, "baseline", making)
    (folder / "keys" / KEY).write_bytes(record.replace(b"%s", KEY.encode()))

    store.obtain(KEY, "my tests", making)

    assert making.times == 2
    assert len(said) == 1
    assert said[0].startswith("my tests: ")


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_what_is_no_regular_file_is_not_read(store: Store, folder: Path, tmp_path: Path, kind: str) -> None:
    making = Making()
    store.obtain(KEY, "baseline", making)
    (path,) = files(folder, "objects")
    (tmp_path / "same").write_bytes(path.read_bytes())
    path.unlink()
    if kind == "link":
        path.symlink_to(tmp_path / "same")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()

    kept = store.obtain(KEY, "baseline", making)

    assert making.times == 2
    assert content(kept) == b"content"


def test_an_unsafe_archive_with_the_right_hash_is_dropped(store: Store, folder: Path, said: list[str]) -> None:
    making = Making()
    store.obtain(KEY, "baseline", making)
    (path,) = files(folder, "objects")
    hostile = _unchecked(b"no archive at all".ljust(512) + bytes(1024))
    (path.parent / hostile.sha256).write_bytes(hostile.open().read())
    record = folder / "keys" / KEY
    record.write_text(record.read_text().replace(path.name, hostile.sha256))

    assert content(store.obtain(KEY, "baseline", making)) == b"content"
    assert making.times == 2
    assert "dropped" in said[0]


# --- several processes ------------------------------------------------------------------------------------------------

PRELUDE = """
import os, sys
from pathlib import Path
from pytest_sandbox.core.archive import Archive, Entry
from pytest_sandbox.core.store import Kept, Store

def say(line):
    os.write(1, line.encode() + b"\\n")

store = Store(Path(sys.argv[1]), say)
"""


class Others:
    """Further processes that use the store; all ended with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[subprocess.Popen[str]] = []

    def start(self, script: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PRELUDE + textwrap.dedent(script), str(self._folder)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._started.append(process)
        return process

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def others(folder: Path) -> Iterator[Others]:
    others = Others(folder)
    yield others
    others.end()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


HOLD = f"""
def make():
    say("making")
    sys.stdin.readline()
    return Kept(Archive.build([Entry("file", b"theirs")]))

store.obtain({KEY!r}, "baseline", make)
say("done")
"""


def test_of_many_processes_one_makes_it_and_all_have_it(folder: Path, others: Others) -> None:
    script = f"""
    def make():
        say("making")
        return Kept(Archive.build([Entry("file", os.urandom(16))]))

    sys.stdin.readline()
    say(store.obtain({KEY!r}, "baseline", make).archive.sha256)
    """
    processes = [others.start(script) for _ in range(6)]

    printed = []
    for process in processes:  # all are up before the first may go
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        printed += process.communicate(timeout=60)[0].splitlines()

    assert printed.count("making") == 1
    assert len(set(printed)) == 2


def test_who_waits_says_for_whom(folder: Path, others: Others) -> None:
    maker = others.start(HOLD)
    assert line(maker) == "making"
    told = threading.Event()
    said: list[str] = []

    def notify(text: str) -> None:
        said.append(text)
        told.set()

    making = Making(b"ours")
    outcome: list[Kept] = []
    thread = threading.Thread(target=lambda: outcome.append(Store(folder, notify).obtain(KEY, "my tests", making)))
    thread.start()
    assert told.wait(30)
    assert maker.stdin is not None
    maker.stdin.write("\n")
    maker.stdin.flush()
    thread.join(30)

    assert said == [f"my tests: waiting for process {maker.pid}, which is making it"]
    assert content(outcome[0]) == b"theirs"
    assert making.times == 0


def test_a_killed_maker_makes_way_for_the_next(store: Store, folder: Path, others: Others) -> None:
    maker = others.start(HOLD)
    assert line(maker) == "making"
    (folder / "partial").mkdir()
    (folder / "partial" / KEY).write_bytes(b"half of it")

    maker.send_signal(signal.SIGKILL)

    assert content(store.obtain(KEY, "baseline", Making(b"ours"))) == b"ours"
    assert files(folder, "partial") == []


def test_an_interrupt_ends_the_waiting(folder: Path, others: Others) -> None:
    maker = others.start(HOLD)
    assert line(maker) == "making"
    waiting = others.start(
        f"""
        try:
            store.obtain({KEY!r}, "baseline", lambda: None)
        except KeyboardInterrupt:
            say("interrupted")
        """
    )
    assert line(waiting).startswith("baseline: waiting")

    waiting.send_signal(signal.SIGINT)

    assert line(waiting) == "interrupted"


def test_other_keys_do_not_wait(store: Store, others: Others) -> None:
    assert line(others.start(HOLD)) == "making"

    assert content(store.obtain(OTHER, "baseline", Making())) == b"content"


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_what_is_not_used_for_long_is_removed(folder: Path, said: list[str]) -> None:
    store = Store(folder, said.append, unused_limit=DAY)
    store.obtain(KEY, "old", Making(b"old"))
    unused_for(folder, KEY, 2 * DAY)
    gc.collect()

    store.obtain(OTHER, "new", Making(b"new"))

    assert [path.name for path in files(folder, "keys")] == [OTHER]
    assert len(files(folder, "objects")) == 1


def test_using_it_keeps_it(folder: Path, said: list[str]) -> None:
    store = Store(folder, said.append, unused_limit=DAY)
    making = Making()
    store.obtain(KEY, "baseline", making)
    unused_for(folder, KEY, DAY - 60)

    store.obtain(KEY, "baseline", making)
    store.prune()

    assert store.last_used(KEY) == pytest.approx((folder / "lock").stat().st_mtime, abs=60)
    assert making.times == 1


def test_beyond_the_size_the_longest_unused_goes_first(folder: Path, said: list[str]) -> None:
    size = archive(bytes(10_000)).size
    store = Store(folder, said.append, size_limit=2 * size)
    keys = ["01", "02", "03"]
    for age, key in enumerate(keys):
        store.obtain(key, key, Making(key.encode() * 5_000))
        unused_for(folder, key, 1000 - age)

    assert [path.name for path in files(folder, "keys")] == keys[1:]
    assert len(files(folder, "objects")) == 2


def test_an_archive_beyond_the_size_is_returned_and_not_kept(folder: Path, said: list[str]) -> None:
    store = Store(folder, said.append, size_limit=1000)

    kept = store.obtain(KEY, "my tests", Making())

    assert content(kept) == b"content"
    assert not (folder / "objects").exists()
    assert said[0].startswith(f"my tests: not kept in {folder}: its ")


@pytest.mark.parametrize("size", [10, IN_MEMORY + 1], ids=["in memory", "on disk"])
def test_what_a_process_uses_is_never_removed(folder: Path, said: list[str], size: int) -> None:
    store = Store(folder, said.append, size_limit=0, unused_limit=-DAY)
    Store(folder, said.append).obtain(KEY, "baseline", Making(bytes(size)))
    used = Store(folder, said.append).obtain(KEY, "baseline", Making())

    store.prune()

    assert len(files(folder, "objects")) == 1
    assert content(used) == bytes(size)
    del used
    gc.collect()
    store.prune()
    assert files(folder, "objects") == files(folder, "keys") == []


def test_pruning_while_others_put_and_get_harms_nobody(folder: Path, others: Others) -> None:
    script = """
    pruned = Store(Path(sys.argv[1]), say, size_limit=4000, unused_limit=-1)
    for turn in range(60):
        for number in range(3):
            content = b"%d" % number * 1000
            kept = pruned.obtain(f"0{number}", "baseline", lambda: Kept(Archive.build([Entry("file", content)])))
            assert b"".join(kept.archive.content(kept.archive.members()[-1])) == content
            pruned.prune()
    say("well")
    """
    processes = [others.start(script) for _ in range(4)]

    assert [process.communicate(timeout=120)[0] for process in processes] == ["well\n"] * 4


def test_leftovers_of_killed_makers_are_removed_and_those_at_work_left_alone(
    store: Store, folder: Path, others: Others
) -> None:
    assert line(others.start(HOLD)) == "making"
    (folder / "partial").mkdir()
    for key in (KEY, OTHER):
        (folder / "partial" / key).write_bytes(b"half of it")

    store.prune()

    assert [path.name for path in files(folder, "partial")] == [KEY]


def test_a_chore_is_due_once_a_day(store: Store, folder: Path) -> None:
    assert [store.is_due("sweep"), store.is_due("sweep"), store.is_due("other")] == [True, False, True]
    stamp = folder / "sweep.done"
    for moved, due in ((-2 * DAY, True), (2 * DAY, True), (-60, False)):
        moment = stamp.stat().st_mtime + moved
        os.utime(stamp, (moment, moment))
        assert store.is_due("sweep") is due


# --- a host that is in the way ----------------------------------------------------------------------------------------


def test_a_full_disk_costs_the_keeping_and_not_the_test(full_disk: Path, said: list[str]) -> None:
    store = Store(full_disk / "store", said.append)
    making = Making(os.urandom(100_000))

    kept = store.obtain(KEY, "my tests", making)

    assert content(kept) == making.content
    assert said == [f"my tests: not kept in {full_disk / 'store'}: {os.strerror(errno.ENOSPC)}; it will be made again"]
    assert files(full_disk / "store", "partial") == []
    assert content(store.obtain(OTHER, "small", Making())) == b"content"


def test_a_folder_that_can_not_be_made_costs_the_keeping_and_not_the_test(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "store", said.append)

    assert content(store.obtain(KEY, "my tests", Making())) == b"content"
    assert "not kept" in said[0]
    assert store.facts(KEY) == {}
    assert store.last_used(KEY) == 0
    assert not store.is_due("chore")
