"""Baselines that outlive the process: known by all that goes into them, made by one worker, found by the others.

What a baseline has in the workspace is kept in the store, what it has in the system as an image on the engine. How it
is made is in baseline.py.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from .agent.binaries import agent_binary
from .core.snapshot import Snapshot
from .core.store import Kept, Store
from .errors import EngineError
from .loop import run
from .mounts import Bind
from .secret import Secret

if TYPE_CHECKING:
    from .baseline import Baseline
    from .core.pool import SandboxPool
    from .models import SandboxSettings, StoredImage

logger = logging.getLogger(__name__)

FORMAT = 1  # of what is kept: another one makes all of it anew
IMAGE_LABEL = "pytest-sandbox.baseline"  # its value is the key
IMAGE_NAME = "pytest-sandbox-baseline"
REPLACED_LIMIT = 3600.0  # seconds; a run that has just found an image will have made its containers from it
RECENT = 4  # baselines kept at hand, so that the modules of a run that share one restore it at the cost of what changed

# How long a command may take, and what happens between tests, leave no trace in a baseline; of the image its content
# counts. All else does, what is yet to be invented included.
WITHOUT_TRACE = frozenset({"image", "pull", "timeout", "isolation", "secrets"})


@dataclass(frozen=True, slots=True)
class Made:
    """A baseline that was made: its workspace, and what stands for the rest.

    image: the content id of the image that has the system's part, if that is wanted.
    outside: stands for such a part in the pool if it is in no image; then each container needs it made again.
    """

    snapshot: Snapshot
    image: str = ""
    outside: object | None = None


class BaselineKeeper:
    """The kept baselines, as one process of a run uses them.

    run_id: what the processes of this run have in common. notify: takes a line for whoever is watching the run.
    refresh: what other runs have made is not used.
    """

    def __init__(
        self, pool: SandboxPool, store: Store, run_id: str, notify: Callable[[str], None], *, refresh: bool = False
    ) -> None:
        self._pool = pool
        self._store = store
        self._run_id = run_id
        self._notify = notify
        self._refresh = refresh
        self._recent: dict[str, Made] = {}  # by key, longest unused first

    def obtain(self, baseline: Baseline, settings: SandboxSettings, name: str, make: Callable[[str], Made]) -> Made:
        """Return the baseline as it was kept, or make and keep it: what make() raises is raised, and nothing kept.

        name: of what asks for it, for those who wait. make: takes the key, with which it labels an image.
        """
        key = self._key(baseline, settings)
        if (made := self._recent.pop(key, None)) is None:
            made = self._kept_or_made(key, baseline, settings, name, make)
        self._recent[key] = made
        while len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]
        return made

    def close(self) -> None:
        """Remove images that nobody has used for long, once a day. Archives are looked after by the store."""
        self._recent.clear()
        try:
            if self._pool.description is not None and self._store.is_due(
                f"images-{_digest(self._pool.description.id)}"
            ):
                self._remove_images(IMAGE_LABEL)
                run(run(self._pool.engine()).remove_unused_images(self._store.unused_limit))
        except EngineError as error:
            logger.warning("keeper.images.failed old images may be left: %s", error)

    def _kept_or_made(
        self, key: str, baseline: Baseline, settings: SandboxSettings, name: str, make: Callable[[str], Made]
    ) -> Made:
        made: list[Made] = []

        def to_be_kept() -> Kept:
            made.append(make(key))
            if self._key(baseline, settings) != key:
                raise _Moved  # a local file, or the image, changed meanwhile: which of both it has can't be known
            facts = {"run": self._run_id, "image": made[0].image, "name": name}
            # That there is nothing to keep is kept as well: else the workers would wait for each other in vain.
            return Kept(made[0].snapshot.archive if made[0].outside is None else None, facts)

        try:
            found = self._store.obtain(key, name, to_be_kept, usable=lambda kept: self._is_usable(key, kept))
        except _Moved:
            return made[0]
        if not made:
            if found.archive is None:
                return make(key)
            return Made(Snapshot("baseline", found.archive), found.facts.get("image", ""))
        if made[0].outside is not None:
            self._notify(f"{name}: changes the system too, so nothing of it is kept; with system=True all is")
        if made[0].image:
            self._remove_images(f"{IMAGE_LABEL}={key}")
        return made[0]

    def _is_usable(self, key: str, kept: Kept) -> bool:
        if self._refresh and kept.facts.get("run") != self._run_id:
            return False
        image = kept.facts.get("image")
        return not image or any(found.id == image for found in self._images(f"{IMAGE_LABEL}={key}"))

    def _key(self, baseline: Baseline, settings: SandboxSettings) -> str:
        image = run(self._pool.image_digest(settings))
        assert self._pool.description is not None
        parts = {
            "format": FORMAT,
            "agent": agent_binary(self._pool.description.architecture).build,
            "engine": self._pool.description.id if baseline.system else "",  # where its image is
            "image": image,
            "settings": {
                each.name: getattr(settings, each.name) for each in fields(settings) if each.name not in WITHOUT_TRACE
            },
            "mounted": [outline(Path(mount.source)) for mount in settings.mounts if isinstance(mount, Bind)],
            "baseline": _parts(baseline),
        }
        return _digest(json.dumps(parts, sort_keys=True, default=_plain))

    def _images(self, label: str) -> list[StoredImage]:
        engine = run(self._pool.engine())
        return run(engine.images(label))

    def _remove_images(self, label: str) -> None:
        """Remove images of baselines that nobody has used for long. One that a container was made from stays."""
        engine = run(self._pool.engine())
        for image in self._images(label):
            if is_unused(image, self._store):
                logger.debug("keeper.image.remove id=%s", image.id)
                run(engine.remove_image(image.id))


def is_unused(image: StoredImage, store: Store) -> bool:
    """Say whether nobody has used a baseline's image for as long as the store keeps one, or another took its place."""
    key = image.labels[IMAGE_LABEL]
    current = store.facts(key).get("image", image.id)  # not known here: of another host, or folder
    unused = time.time() - max(image.created, store.last_used(key) if current == image.id else 0)
    return unused > (store.unused_limit if current == image.id else REPLACED_LIMIT)


class _Moved(Exception):
    """What a baseline is made from changed while it was made."""


def _parts(baseline: Baseline) -> dict[str, object]:
    """All that a baseline says, and the content of what it names. Raises OSError."""
    return {
        "entries": [(path, entry.identity) for path, entry in baseline.entries.items()],
        "commands": [command if isinstance(command, str) else list(command) for command in baseline.commands],
        "key": baseline.key,
        "system": baseline.system,
    }


def outline(path: Path) -> str:
    """Return a hash of what a bind has: names, modes, sizes, times. Contents are too much: that is why it is a bind.

    Of what is not on this machine it says only that.
    """
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in ("", *sorted(files), *folders):
            _note(digest, Path(folder, name))
    if not path.is_dir():
        _note(digest, path)
    return digest.hexdigest()


def _note(digest: hashlib._Hash, path: Path) -> None:
    try:
        found = path.lstat()
    except OSError:
        return  # it went meanwhile
    digest.update(f"{path}\0{found.st_mode} {found.st_size} {found.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))


def _plain(value: object) -> str:
    return value.reveal() if isinstance(value, Secret) else str(value)


def _digest(content: str | bytes) -> str:
    return hashlib.sha256(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content).hexdigest()
