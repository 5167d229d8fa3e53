"""Images made from local files: built, loaded or imported, once for all processes of this host.

Such an image has a name made of a hash of all that goes into it, so what is there need not be made. Blocking calls, for
threads; docker.py says what they cost and translates the client's errors.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, cast

import docker
import docker.errors
import docker.utils.build
import filelock

from ..errors import EngineRequestFailed, ImageNotAvailable, ImageNotMade
from ..folders import PRIVATE_FILE, writing
from ..image import Image
from ..models import PullPolicy
from . import buildkit
from .dockerfile import advised, base_images, syntax_image
from .locks import locked

logger = logging.getLogger(__name__)

REPOSITORY = "pytest-sandbox-image"
PODMAN_REGISTRIES = ("docker.io/library/", "localhost/")
MAKE_SECONDS = 1800  # for one image, also when another process is at it
REMOVE_SECONDS = 30
CHUNK = 1024 * 1024  # bytes

# What kind of archive it is, by a member that no root file system has at its top.
SAVED, OCI = "manifest.json", "oci-layout"


class LocalImages:
    """Those of one engine.

    connect: makes a client whose requests take so many seconds at most. call: surrounds a call to the engine, with its
    name, subject and seconds. folder: of this host, for locks and for when an image was used last. architecture: of the
    engine, as it calls it itself. uses_buildkit: it has that, and it is wanted. pull: sees to an image that a build
    begins with. progress: takes a short line about what a long call is at.
    """

    def __init__(
        self,
        connect: Callable[[int], docker.APIClient],
        call: Callable[[str, str, float], AbstractContextManager[None]],
        folder: Path,
        architecture: str,
        uses_buildkit: bool,
        pull: Callable[[str, PullPolicy], object],
        progress: Callable[[str], None],
    ) -> None:
        self._connect = connect
        self._call = call
        self._folder = folder
        self._architecture = architecture
        self._uses_buildkit = uses_buildkit
        self._pull = pull
        self._progress = progress
        self._names: dict[Image, str] = {}  # of those this process has seen to: what changes later is for the next one

    def name(self, image: Image) -> str:
        """Return the name of an image that ensure() has returned."""
        return self._names[image]

    def ensure(self, image: Image, policy: PullPolicy) -> str:
        """Make sure that an image is there, and return its content id.

        policy: for the images that a build begins with. Raises ImageNotMade.
        """
        api = self._connect(MAKE_SECONDS)
        try:
            known = self._names.get(image)
            if known is not None and (identity := self._identity(api, known)) is not None:
                return identity
            with _opened(image) as content:
                return self._ensure(api, image, content, policy)
        except OSError as error:
            raise ImageNotMade(str(image), "reading it", error.strerror or str(error)) from error
        finally:
            api.close()

    def unused(self, seconds: float, *, remove: bool) -> list[str]:
        """Return the images that nobody of this host has used for so long, a line for each; remove them, if asked to.

        One that a container needs stays.
        """
        api = self._connect(REMOVE_SECONDS)
        try:
            with self._call("images", REPOSITORY, REMOVE_SECONDS):
                found = api.images(name=REPOSITORY)
            ours = {_own_name(name) for image in found for name in image["RepoTags"] or ()} - {""}
            unused = [name for name in sorted(ours) if self._is_unused(api, name, seconds, remove=remove)]
        finally:
            api.close()
        return [f"image {name}, made from local files and not used any more" for name in unused]

    def _is_unused(self, api: docker.APIClient, name: str, seconds: float, *, remove: bool) -> bool:
        """Say whether it is, and, if it was to be removed, gone."""
        try:
            with self._sole_user(name, timeout=0):
                stamp = self._stamp(name)
                if not stamp.exists():
                    with writing(self._folder):
                        stamp.touch(PRIVATE_FILE)  # another host's, or of a cache that was emptied: its time begins now
                elif time.time() - stamp.stat().st_mtime > seconds:
                    if not remove:
                        return True
                    logger.debug("image.unused.remove name=%s", name)
                    if self._untag(api, name):
                        stamp.unlink()
                        return True
        except filelock.Timeout:
            pass  # being made right now
        return False

    def _ensure(self, api: docker.APIClient, image: Image, content: _Content, policy: PullPolicy) -> str:
        self._ensure_bases(image, content, policy)
        name = self._name(api, image, content)
        try:
            with self._sole_user(name, timeout=MAKE_SECONDS):
                with writing(self._folder):
                    self._stamp(name).touch(PRIVATE_FILE)
                identity = self._identity(api, name)
                if identity is None:
                    began = time.monotonic()
                    try:
                        self._make(api, image, content, name)
                    except EngineRequestFailed as error:
                        raise ImageNotMade(str(image), f"the engine's {error.call}", error.reason) from error
                    finally:
                        self._progress("")
                    logger.debug("image.made name=%s path=%s seconds=%.1f", name, image, time.monotonic() - began)
                    identity = self._identity(api, name)
        except filelock.Timeout as error:
            raise ImageNotMade(str(image), "waiting for another process that makes it", "no end of it") from error
        if identity is None:
            raise ImageNotMade(str(image), "looking for it", "made, and gone again")
        self._names[image] = name
        return identity

    def _ensure_bases(self, image: Image, content: _Content, policy: PullPolicy) -> None:
        """See to the images that a build begins with: the engine would pull them whatever the policy, and BuildKit
        without the credentials, which it asks for in a way of its own.
        """
        syntax = (content.syntax,) if content.syntax and self._uses_buildkit else ()
        for base in (*syntax, *content.bases):
            try:
                self._pull(base, policy)
            except ImageNotAvailable as error:
                raise ImageNotMade(str(image), "building", f"it begins with {base}: {error.reason}") from error

    def _make(self, api: docker.APIClient, image: Image, content: _Content, name: str) -> None:
        content.file.seek(0)
        if content.dockerfile:
            self._build(api, image, content, name)
        elif content.is_archive_of_images:
            with tempfile.TemporaryFile() as archive:
                _write_saved(content.file, archive, name, self._architecture, str(image))
                self._progress(f"loading {image.path.name}")
                with self._call("load", str(image), MAKE_SECONDS):
                    answer = api.load_image(archive)  # type: ignore[no-untyped-call]
                    _raise_for_errors(answer, image, "loading")
        else:
            self._progress(f"importing {image.path.name}")
            with self._call("import", str(image), MAKE_SECONDS):
                # The tag not apart from the repository, where Podman does not look for it.
                answer = api.import_image(cast("Any", content.file), name)
                _raise_for_errors(map(json.loads, answer.splitlines()), image, "importing")

    def _build(self, api: docker.APIClient, image: Image, content: _Content, name: str) -> None:
        self._progress(f"building {image.path.name}")
        log: list[str] = []
        builder = self._buildkit if self._uses_buildkit else self._classic
        with self._call("build", f"{image} with {builder.__name__.lstrip('_')}", MAKE_SECONDS):
            _raise_for_errors(builder(api, image, content, name, log), image, "building", log, content.advice)

    def _buildkit(
        self, api: docker.APIClient, image: Image, content: _Content, name: str, log: list[str]
    ) -> Iterator[dict[str, Any]]:
        """Build, pass the answer on, and say what it is at.

        docker-py has no interface to it. What BuildKit asks its client for in a session of gRPC (credentials, secrets,
        files as they are needed) it does without where the context comes whole, as here.
        """
        wanted = {
            "version": "2",
            "t": name,
            "dockerfile": content.dockerfile,
            "buildargs": json.dumps(dict(image.args)),
            "target": image.target,
        }
        steps: dict[str, None] = {}  # in order, each once; several are under way at once
        unfinished = b""
        with api.post(
            f"{api.base_url}/v{api.api_version}/build",
            params=wanted,
            data=content.file,
            headers={"Content-Type": "application/x-tar"},
            timeout=api.timeout,
            stream=True,
        ) as answer:
            for entry in (json.loads(line) for line in answer.iter_lines() if line):
                begun, written = buildkit.told(entry)
                for step in begun:
                    if step not in steps:
                        log.append(step)
                        self._progress(f"building {image.path.name}: {step}")
                    steps[step] = None
                *lines, unfinished = (unfinished + written).split(b"\n")
                log += (line.decode(errors="replace").rstrip() for line in lines if line.strip())
                yield entry
        log += [unfinished.decode(errors="replace")] if unfinished else []

    def _classic(
        self, api: docker.APIClient, image: Image, content: _Content, name: str, log: list[str]
    ) -> Iterator[dict[str, Any]]:
        """The same by the builder of before, which Podman has in a form of its own."""
        answer = api.build(
            fileobj=content.file,
            custom_context=True,
            dockerfile=content.dockerfile,
            tag=name,
            buildargs=dict(image.args),
            target=image.target or None,
            rm=True,
            forcerm=True,  # nothing of a build that fails stays, either
            decode=True,
        )
        for entry in answer:
            lines = str(entry.get("stream", "")).splitlines()
            log += (line.rstrip() for line in lines if line.strip() and not line.startswith("Removing intermediate"))
            if step := next((line for line in lines if line.lower().startswith("step ")), None):
                self._progress(f"building {image.path.name}: {step}")
            yield entry

    # --- names ----------------------------------------------------------------------------------------------------

    def _name(self, api: docker.APIClient, image: Image, content: _Content) -> str:
        """Return the name that stands for all that goes into the image, as the engine has it at the moment."""
        parts = {
            "content": content.digest,
            "dockerfile": content.dockerfile,
            "args": dict(image.args),
            "target": image.target,
            "bases": {base: self._identity(api, base) for base in content.bases},
        }
        return f"{REPOSITORY}:{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]}"

    def _identity(self, api: docker.APIClient, name: str) -> str | None:
        with self._call("image inspect", name, MAKE_SECONDS):
            try:
                return str(api.inspect_image(name)["Id"])  # type: ignore[no-untyped-call]
            except docker.errors.NotFound:
                return None

    def _untag(self, api: docker.APIClient, name: str) -> bool:
        """Remove an image, or its name if it has others; say no if a container needs it."""
        with self._call("image remove", name, REMOVE_SECONDS):
            try:
                api.remove_image(name)
            except docker.errors.NotFound:
                return True
            except docker.errors.APIError as error:
                if error.status_code != 409:
                    raise
                return False
        return True

    @contextmanager
    def _sole_user(self, name: str, timeout: float) -> Iterator[None]:
        """Hold the lock of a name: one process makes an image, or removes it."""
        with locked(self._folder / f"{name.replace(':', '-')}.lock", timeout):
            yield

    def _stamp(self, name: str) -> Path:
        return self._folder / f"{name.replace(':', '-')}.used"


def _own_name(name: str) -> str:
    """Return what we call an image of ours, of the name that the engine has for it; of another's nothing.

    Podman has a registry in each name: Docker Hub's if it was built, none's if it was loaded. It knows it by ours, too.
    """
    for registry in PODMAN_REGISTRIES:
        name = name.removeprefix(registry)
    return name if name.startswith(f"{REPOSITORY}:") else ""


def _raise_for_errors(
    answer: Iterable[dict[str, Any]],
    image: Image,
    step: str,
    log: Iterable[str] = (),
    advice: Callable[[str], str] = str,
) -> None:
    """Read an answer to its end. An engine that refuses says `message`, one that fails on the way `error`."""
    # To the end, after an error too: what is not read keeps its socket.
    reasons = [entry.get("error") or entry.get("message") for entry in answer]
    if reason := next(filter(None, reasons), None):
        raise ImageNotMade(str(image), step, advice(str(reason).strip()), "\n".join(log))


# --- what is sent -----------------------------------------------------------------------------------------------------


class _Content:
    """What an image is made from, open for reading.

    dockerfile: its name in the build's context, empty for an archive. bases: the images it begins with. syntax: the one
    that is to read the Dockerfile. advice: completes the reason why the engine did not take it.
    """

    def __init__(
        self,
        file: IO[bytes],
        digest: str,
        *,
        dockerfile: str = "",
        bases: tuple[str, ...] = (),
        syntax: str = "",
        advice: Callable[[str], str] = str,
    ) -> None:
        self.file = file
        self.digest = digest
        self.dockerfile = dockerfile
        self.bases = bases
        self.syntax = syntax
        self.advice = advice

    @property
    def is_archive_of_images(self) -> bool:
        self.file.seek(0)
        try:
            with tarfile.open(fileobj=self.file) as tar:
                return any(_plain(member.name) in (SAVED, OCI) for member in tar)
        except tarfile.TarError:
            return False  # compressed in a way that only the engine may know
        finally:
            self.file.seek(0)


@contextmanager
def _opened(image: Image) -> Iterator[_Content]:
    """Open what an image is made from. Raises OSError, ImageNotMade."""
    if not image.path.is_dir():
        with image.path.open("rb") as file:
            yield _Content(file, hashlib.file_digest(file, "sha256").hexdigest())
        return
    with tempfile.TemporaryFile() as file:
        if (image.path / OCI).exists():
            with tarfile.open(fileobj=file, mode="w") as tar:
                for path in sorted(image.path.iterdir()):
                    tar.add(path, path.name, filter=_timeless)
            file.seek(0)
            yield _Content(file, hashlib.file_digest(file, "sha256").hexdigest())
            return
        path = image.path / image.dockerfile
        if not path.is_file():
            raise ImageNotMade(str(image), "building", f"there is no file {image.dockerfile}")
        text = path.read_text()
        inside = path.resolve().is_relative_to(image.path.resolve())
        name = path.relative_to(image.path).as_posix() if inside and path.is_relative_to(image.path) else ".dockerfile"
        exclude = _ignored(image.path / ".dockerignore")
        # BuildKit takes what it gets for a Dockerfile unless the first kilobyte has a whole member, and Python begins
        # each with a header of times in fractions of a second.
        root = tarfile.TarInfo("./")
        root.type, root.mode = tarfile.DIRTYPE, 0o755
        file.write(root.tobuf(tarfile.USTAR_FORMAT))
        docker.utils.build.tar(
            image.path, exclude, dockerfile=(name, None if name != ".dockerfile" else text), fileobj=file
        )
        bases = base_images(text, image.args, image.target)
        yield _Content(
            file,
            _context_digest(file),
            dockerfile=name,
            bases=bases,
            syntax=syntax_image(text),
            advice=lambda reason: advised(reason, text),
        )


def _timeless(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _ignored(path: Path) -> list[str]:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _context_digest(context: IO[bytes]) -> str:
    """Return a hash of what a build can see: names, kinds, modes, contents. No times: each checkout has its own."""
    digest = hashlib.sha256()
    with tarfile.open(fileobj=context) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isreg() else None
            content = hashlib.file_digest(cast("Any", file), "sha256").hexdigest() if file is not None else ""
            parts = (member.name, member.type.decode(), member.mode, member.linkname, content)
            digest.update(json.dumps(parts).encode())
    context.seek(0)
    return digest.hexdigest()


# --- archives of images -----------------------------------------------------------------------------------------------


def _write_saved(source: IO[bytes], target: IO[bytes], name: str, architecture: str, shown: str) -> None:
    """Write an archive of one image as `docker save` would, the image having this name and no other.

    Every engine takes that form. With its own names the image could take them from others on the engine.
    """
    try:
        with tarfile.open(fileobj=source) as tar, tarfile.open(fileobj=target, mode="w") as out:
            members = {_plain(member.name): member for member in tar if not member.isdir()}

            def read(path: str) -> Any:
                file = tar.extractfile(members[path]) if path in members else None
                if file is None:
                    raise ImageNotMade(shown, "loading", f"the archive has no {path}")
                return json.loads(file.read())

            if SAVED in members:
                manifests = read(SAVED)
                if len(manifests) != 1:
                    raise ImageNotMade(shown, "loading", f"the archive has {len(manifests)} images, and not one")
                manifest = manifests[0]
            else:
                manifest = _of_oci(read, architecture, shown)
            needed = {_plain(path) for path in (manifest["Config"], *manifest["Layers"])}
            # Links may lead from one layer to another one, so all that is not a name of an image stays.
            for path in sorted(members.keys() - {SAVED, OCI, "index.json", "repositories"} | needed):
                if path not in members:
                    raise ImageNotMade(shown, "loading", f"the archive has no {path}")
                member = members[path]
                member.name = path
                out.addfile(member, tar.extractfile(member) if member.isreg() else None)
            text = json.dumps([{"Config": manifest["Config"], "RepoTags": [name], "Layers": manifest["Layers"]}])
            entry = tarfile.TarInfo(SAVED)
            entry.size = len(text.encode())
            out.addfile(entry, io.BytesIO(text.encode()))
    except (tarfile.TarError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ImageNotMade(shown, "loading", f"not an archive of an image: {error}") from error
    target.seek(0)


def _of_oci(read: Callable[[str], Any], architecture: str, shown: str) -> dict[str, Any]:
    """Return what `docker save` would say of the image of an OCI layout, through whatever indexes lead to it."""
    index = read("index.json")
    while "layers" not in index:
        entries = [
            entry
            for entry in index["manifests"]
            if entry.get("platform", {}).get("architecture", architecture) == architecture
        ]
        if len(entries) != 1:
            raise ImageNotMade(
                shown, "loading", f"the archive has {len(entries)} images for {architecture}, and not one"
            )
        index = read(_blob(entries[0]))
    return {"Config": _blob(index["config"]), "Layers": [_blob(layer) for layer in index["layers"]]}


def _blob(descriptor: Mapping[str, str]) -> str:
    return f"blobs/{descriptor['digest'].replace(':', '/')}"


def _plain(name: str) -> str:
    return name.removeprefix("./")
