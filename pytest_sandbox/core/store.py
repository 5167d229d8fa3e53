"""Archives that outlive the process: kept in a folder of this host by what they are made from, and shared.

    objects/<sha256>   archives, named by their content
    keys/<key>         which archive was made for a key, and facts about it; its mtime says when it was used last
    locks/<key>        held by the process that makes it, whose pid it contains
    partial/<key>      what that process is writing
    lock, …            held while files get their names or lose them; and the dates of what is done once a day

Many processes use one folder at once. Blocking calls, for any thread but the owner loop's; whoever waits for a lock
waits in flock(2), which ends with its holder, however that ends. No sandbox here.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer

from ..configuration import RunSettings
from ..errors import ArchiveError
from ..folders import cache_folder
from .archive import Archive
from .spool import Spool
from .tar import CHUNK

logger = logging.getLogger(__name__)

DAY = 86400.0  # seconds
DEFAULTS = RunSettings()
PATIENCE = 1.0  # seconds of waiting before it is said what for

_SHA256 = re.compile(r"([0-9a-f]{64})?")


def default_folder() -> Path:
    """Return where archives are kept unless somebody says otherwise."""
    return cache_folder() / "store"


@dataclass(frozen=True)
class Kept:
    """What was made for a key: an archive, or None if it is known that there is none to keep; and short texts."""

    archive: Archive | None
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Record:
    """What keys/<key> says: damaged or made by hand it may name an archive that is not there, but none outside.

    sha256: of the archive, empty without one.
    """

    sha256: str
    facts: Mapping[str, str]


class Store:
    """A folder of archives. Its files are for this user only.

    notify: takes a line for whoever is watching the run. size_limit: bytes of archives, beyond which the longest unused
    go; unused_limit: seconds after which any goes. A folder that can't be written to keeps nothing: that is said,
    and nobody fails for it.
    """

    def __init__(
        self,
        folder: Path,
        notify: Callable[[str], None],
        *,
        size_limit: int = DEFAULTS.store_size,
        unused_limit: float = DEFAULTS.store_days * DAY,
    ) -> None:
        self._folder = folder
        self._notify = notify
        self._size_limit = size_limit
        self.unused_limit = unused_limit

    def obtain(
        self, key: str, name: str, make: Callable[[], Kept], *, usable: Callable[[Kept], bool] = lambda _: True
    ) -> Kept:
        """Return what is kept for a key, or make and keep it: one process makes, the others wait for it.

        key: hex digits. name: what people call it. usable: may refuse what is kept. What make() raises is raised and
        nothing kept; when it can't be kept, it is returned all the same.
        """
        if (kept := self._usable(key, name, usable)) is not None:
            return kept
        with ExitStack() as held:
            try:
                held.enter_context(self._sole_maker(key, name))
            except OSError as error:
                self._not_kept(name, error)
                return make()
            # Whoever had the lock before may have made it.
            if (kept := self._usable(key, name, usable)) is not None:
                return kept
            made = make()
            if made.archive is not None:
                made.archive.members()  # raises for one that no sandbox would take
            try:
                self._put(key, made)
            except OSError as error:
                self._not_kept(name, error)
        self.prune()
        return made

    def facts(self, key: str) -> Mapping[str, str]:
        """Return what is known about a key, without looking at its archive; nothing for one that is not kept."""
        try:
            record = self._record(key)
        except _Damaged:
            return {}
        return record.facts if record is not None else {}

    def last_used(self, key: str) -> float:
        """Return when a key was last used, in seconds since the epoch; 0 for one that is not kept."""
        try:
            return self._path("keys", key).stat().st_mtime
        except OSError:
            return 0.0

    def is_due(self, chore: str) -> bool:
        """Say whether a chore was not done for a day; who is told so is to do it, and nobody else is told."""
        try:
            with self._renaming():
                stamp = self._folder / f"{chore}.done"
                age = time.time() - stamp.stat().st_mtime if stamp.exists() else DAY
                if 0 <= age < DAY:  # a date in the future is of a clock that was wrong
                    return False
                stamp.touch(0o600)
                return True
        except OSError:
            return False

    def prune(self, *, remove: bool = True) -> int:
        """Remove what was not used for long, and what is too much; never what a process is using.

        Return how many bytes of archives that were. remove: if not, it is only looked.
        """
        try:
            with self._renaming():
                return self._prune(time.time() - self.unused_limit, remove=remove)
        except OSError as error:
            logger.warning("store.prune.failed folder=%s error=%s", self._folder, error)
            return 0

    def usage(self) -> tuple[int, int]:
        """Return how many archives there are, and their bytes."""
        sizes = [path.stat().st_size for path in self._files("objects")]
        return len(sizes), sum(sizes)

    def _prune(self, oldest: float, *, remove: bool) -> int:
        objects = {path.name: path for path in self._files("objects")}
        keys_of: dict[str, list[Path]] = {}  # sha256 → its keys
        for path in self._files("keys"):
            sha256 = self._names(path.name)
            if sha256 in objects:
                keys_of.setdefault(sha256, []).append(path)
            elif remove and (sha256 != "" or path.stat().st_mtime < oldest):
                path.unlink()  # its archive is gone, or there never was one and nobody asks any more
        pruned = 0
        for sha256 in objects.keys() - keys_of.keys():
            size_of_it = objects[sha256].stat().st_size
            if not remove or _remove_unused(objects[sha256]):
                pruned += size_of_it
        used = {sha256: max(path.stat().st_mtime for path in keys) for sha256, keys in keys_of.items()}
        size = {sha256: objects[sha256].stat().st_size for sha256 in keys_of}
        total = sum(size.values())
        for sha256 in sorted(used, key=used.__getitem__):
            if used[sha256] >= oldest and total <= self._size_limit:
                continue
            if remove and not _remove_unused(objects[sha256]):
                continue
            total -= size[sha256]
            pruned += size[sha256]
            if remove:
                logger.debug("store.pruned sha256=%s bytes=%d", sha256, size[sha256])
                for path in keys_of[sha256]:
                    path.unlink()
        if remove:
            self._tidy(oldest)
        return pruned

    def _names(self, key: str) -> str | None:
        """Return the hash that a key's record has, None without a record that can be read."""
        try:
            record = self._record(key)
        except _Damaged:
            return None
        return record.sha256 if record is not None else None

    # --- taking out ---------------------------------------------------------------------------------------------------

    def _usable(self, key: str, name: str, usable: Callable[[Kept], bool]) -> Kept | None:
        kept = self._get(key, name)
        return kept if kept is not None and usable(kept) else None

    def _get(self, key: str, name: str) -> Kept | None:
        """Return what is kept for a key, if it is whole; what is not is dropped, and that is said."""
        path = self._path("keys", key)
        try:
            record = self._record(key)
            if record is None:
                return None
            path = self._path("objects", record.sha256)
            archive = _whole_archive(path, record.sha256) if record.sha256 else None
        except FileNotFoundError:
            return None
        except (_Damaged, ArchiveError, OSError) as error:
            self._drop(path, name, str(error).partition(";")[0])
            return None
        try:
            os.utime(self._path("keys", key))
        except OSError as error:
            logger.debug("store.use.failed key=%s error=%s", key, error)  # read-only, or just pruned: we have it
        return Kept(archive, record.facts)

    def _record(self, key: str) -> _Record | None:
        try:
            fields = json.loads(self._path("keys", key).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise _Damaged(str(error)) from error
        try:
            sha256, facts = str(fields["sha256"]), {str(fact): str(text) for fact, text in fields["facts"].items()}
            if fields["key"] != key or not _SHA256.fullmatch(sha256):
                raise _Damaged("it does not name what was kept for it")
        except (LookupError, TypeError, AttributeError) as error:
            raise _Damaged("it is not a record of what was kept") from error
        return _Record(sha256, facts)

    def _drop(self, path: Path, name: str, reason: str) -> None:
        self._notify(f"{name}: the kept archive {path} is dropped: {reason}; it is made again")
        try:
            with self._renaming():
                path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("store.drop.failed path=%s error=%s", path, error)

    # --- putting in ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _sole_maker(self, key: str, name: str) -> Iterator[None]:
        """Hold a key's lock, while waiting for which it is said who has it. Raises OSError."""
        path = self._make_folder("locks") / key
        with _locked(path, lambda holder: self._notify(f"{name}: waiting for process {holder}, which is making it")):
            yield

    def _put(self, key: str, made: Kept) -> None:
        """Keep it; the key's lock is held. Raises OSError."""
        archive = made.archive
        if archive is not None and archive.size > self._size_limit:
            raise OSError(errno.EFBIG, f"its {archive.size} bytes are more than the {self._size_limit} kept in all")
        for folder in ("objects", "keys", "partial"):
            self._make_folder(folder)
        partial = self._path("partial", key)
        sha256 = archive.sha256 if archive is not None else ""
        try:
            if archive is not None:
                # Not synced to the disk: after a crash of the machine it may be short, and its hash tells that.
                with os.fdopen(_create(partial), "wb") as file:
                    for offset in range(0, archive.size, CHUNK):
                        file.write(archive.read_at(offset, CHUNK))
            with self._renaming():
                if archive is not None:
                    partial.rename(self._path("objects", sha256))
                with os.fdopen(_create(partial), "w") as record:
                    json.dump({"key": key, "sha256": sha256, "facts": dict(made.facts)}, record)
                partial.rename(self._path("keys", key))
        finally:
            partial.unlink(missing_ok=True)

    def _not_kept(self, name: str, error: OSError) -> None:
        reason = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        self._notify(f"{name}: not kept in {self._folder}: {reason}; it will be made again")

    # --- the folder ---------------------------------------------------------------------------------------------------

    def _path(self, folder: str, name: str) -> Path:
        return self._folder / folder / name

    def _make_folder(self, name: str = "") -> Path:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # the mode is that of the innermost one alone
        folder = self._folder / name
        folder.mkdir(exist_ok=True, mode=0o700)
        return folder

    def _files(self, folder: str) -> list[Path]:
        path = self._folder / folder
        return [entry for entry in path.iterdir() if not entry.is_dir()] if path.is_dir() else []

    @contextmanager
    def _renaming(self) -> Iterator[None]:
        """Let nobody else give or take names: what prune() counts stays true until it removes it."""
        with _locked(self._make_folder() / "lock"):
            yield

    def _tidy(self, oldest: float) -> None:
        """Remove what makers left that were killed, and locks of keys that nobody asks for any more."""
        leftovers = [path.name for path in self._files("partial")]
        unused = [path.name for path in self._files("locks") if path.stat().st_mtime < oldest]
        for key in {*leftovers, *unused}:
            lock = self._make_folder("locks") / key
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._path("partial", key).unlink(missing_ok=True)
                lock.unlink()
            except BlockingIOError:
                pass  # being made right now
            finally:
                os.close(descriptor)


class _Damaged(Exception):
    """Why a kept archive can't be used."""


@contextmanager
def _locked(path: Path, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a lock file that contains the holder's pid; waiting: called with that pid when it takes a while."""
    descriptor = _lock(path, waiting)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        # Not by closing alone: a process forked meanwhile has the descriptor too.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _lock(path: Path, waiting: Callable[[str], None] | None) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _wait_for(descriptor, waiting)
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # removed as unused after it was opened: whoever comes now locks another file


def _wait_for(descriptor: int, waiting: Callable[[str], None] | None) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    else:
        return
    timer = Timer(PATIENCE, lambda: waiting(os.pread(descriptor, 20, 0).decode(errors="replace")) if waiting else None)
    timer.daemon = True
    timer.start()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    finally:
        timer.cancel()
        timer.join()  # it may be about to read the descriptor


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _remove_unused(path: Path) -> bool:
    """Remove an archive, and say so, unless a process holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        path.unlink()  # not one of ours
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def _whole_archive(path: Path, sha256: str) -> Archive:
    """Open an archive that has this hash and members that a sandbox would take.

    It stays locked for as long as it is in use, and that is what keeps prune() off. Raises _Damaged, ArchiveError,
    OSError.
    """
    # Not followed: a link may lead anywhere. Not blocked: nor may a FIFO, which has no other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _Damaged("it is no regular file")
    file = os.fdopen(descriptor, "rb")
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
        archive = Archive(Spool.of_file(file), sha256)
        if _sha256(archive) != sha256:
            raise _Damaged("its content is not what was kept")
        archive.members()
    except BaseException:
        file.close()
        raise
    return archive


def _sha256(archive: Archive) -> str:
    digest = hashlib.sha256()
    for offset in range(0, archive.size, CHUNK):
        digest.update(archive.read_at(offset, CHUNK))
    return digest.hexdigest()
