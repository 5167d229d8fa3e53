"""Docker Engine, and Podman through the same API, by way of docker-py. Only local_images.py imports it too.

Blocking methods, run in threads, do the work step by step; the coroutines around them bound it in time, and see to it
that a caller who gives up leaves nothing behind. Foreign errors become ours in `_translated`, once.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import json
import logging
import os
import pickle
import re
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias, TypeVar, cast

import docker
import docker.errors
import docker.types
import docker.utils
import filelock
import requests
import urllib3

from ..agent.binaries import ALIASES, AgentBinary, agent_binary
from ..errors import (
    EngineError,
    EngineNotReachable,
    EnginePermissionDenied,
    EngineRequestFailed,
    EngineTimeout,
    ImageNotAvailable,
    InvalidSetting,
    LimitNotAvailable,
    MadeBeforeFork,
    NotOurs,
    NotWithThisEngine,
    SandboxError,
    SandboxStartFailed,
)
from ..folders import PRIVATE_FILE, cache_folder, writing
from ..models import (
    MEBIBYTE,
    ChangeKind,
    Container,
    EngineDescription,
    EngineFacts,
    FoundSandbox,
    ImageProgram,
    KeptSandbox,
    PullPolicy,
    RootChange,
    SandboxSettings,
    StoredImage,
    shown_size,
)
from . import addresses, waiting
from .addresses import Address
from .base import AGENT_DIRECTORY, SCRATCH, ByteStream, Started
from .blocking import in_thread
from .connections import client, greeting
from .endings import end_all, end_by_socket
from .heir import heir
from .kept import KeptNotes
from .local_images import MAKE_SECONDS, LocalImages
from .locks import locked
from .mounting import engine_mounts, engine_tmpfs, refused, tmpfs_options, volume_names
from .runs import Run, current_run
from .streams import SocketStream, end_socket
from .waiting import Operation

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Connect = Callable[[int], docker.APIClient]  # a client for requests of so many seconds: the bound belongs to the client

PROBE_SECONDS = 3  # for "who are you": what a user waits in front of a hanging engine
PODMAN_SECONDS = 20  # for the same, of one that has answered: Podman asks the package manager about itself
CALL_SECONDS = 30  # for one request; the slowest, a start with a network under full load, took 4 s
START_SECONDS = 90  # for the handful of requests that make a container, the agent volume included
COMMIT_SECONDS = 600  # the engine copies what a set-up wrote, in one request
PULL_SECONDS = 900  # for the whole of an image, also when another process is at it
SIMULTANEOUS_CALLS = 8  # more of them only queue up inside the engine

LABEL_RUN = "pytest-sandbox.run"
LABEL_HOST = "pytest-sandbox.host"
LABEL_VERSION = "pytest-sandbox.version"
LABEL_IDENTITY = "pytest-sandbox.identity"  # by which a kept one is known
LABEL_KEPT = "pytest-sandbox.kept"  # the same, of one that was created to be kept
LABEL_AGENT = "pytest-sandbox.agent"

# What the agent of a hardened sandbox needs: to start commands as any user and end them, and to restore files. The
# commands have none.
AGENT_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETPCAP", "SETUID")

AGENT_NAME = "agent"
AGENT_PROGRAM = f"{AGENT_DIRECTORY}/{AGENT_NAME}"
NO_EXECUTION = (
    "the engine keeps its volumes where nothing may be executed\n"
    "mount its data directory (`docker info -f '{{.DockerRootDir}}'`) without noexec, or move it"
)
AGENT_VOLUME = "pytest-sandbox-agent"
AGENT_UNUSED_SECONDS = 86400  # after which a volume goes that no container has; one of another version may come back
NO_QUOTA = ("storage-opt", "quota", "storage driver")  # in what engines say to a size of a root file system or a volume
NAME_TAKEN = "already in use"  # of Docker with status 409, of Podman with 500
NOT_RUNNING = ("is not running", "container state improper")  # to a kill; the other one is Podman's
NO_NETWORK = "none"  # the engine's network for those that have none
NO_ADDRESS = "com.docker.network.bridge.inhibit_ipv4"
VOLUME_POLL, VOLUME_SECONDS = 0.02, 10
BUILDKIT_API = "1.39"  # from which on it is not an experiment

PODMAN = "Libpod/"  # how it calls itself

IMAGE_ARCHITECTURES = {ours: theirs for theirs, ours in ALIASES.items()}

_CLIENT_ERRORS = (
    docker.errors.DockerException,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
)


@dataclass(frozen=True, slots=True)
class _Transport:
    """An attached stream on its way from the thread that opened it. stream: to be called in the event loop."""

    stream: Callable[[], ByteStream]
    close: Callable[[], None]


# What nobody needs, in words, and what removes it.
_Left: TypeAlias = tuple[str, Callable[[], object]]


@dataclass(frozen=True, slots=True)
class _Attached:
    container: Container
    transport: _Transport


class DockerEngine:
    """One engine, as one process uses it. See Engine for what its methods promise."""

    def __init__(self, connect: Connect, description: EngineDescription, address: Address) -> None:
        self._connect = connect
        self._process = os.getpid()
        self._hangs = False  # it had no answer for somebody who then gave up
        self._unanswered = -float("inf")  # when it was last asked in vain whether it does
        self._address = address
        self._api = connect(CALL_SECONDS)
        self._description = description
        self._ending = pickle.dumps(partial(end_all, self._ending_of_one()))
        self._left: dict[str, str] = {}  # to the heir, by name
        self._podman = description.name == "podman"
        self._calls = asyncio.Semaphore(SIMULTANEOUS_CALLS)
        self._sweeping: asyncio.Task[None] | None = None
        # Of starts whose callers gave up: held here until they are through, for nobody else would.
        self._undoing: set[asyncio.Task[None]] = set()
        self.progress: Callable[[str], None] = logger.debug
        self.notify: Callable[[str], None] = logger.warning
        architecture = IMAGE_ARCHITECTURES.get(description.architecture, description.architecture)
        self._folder = cache_folder("engines", _digest(description.id))
        self._local = LocalImages(
            connect,
            self._call,
            self._folder,
            architecture,
            uses_buildkit=_uses_buildkit(description, self._api.api_version),
            pull=lambda image, policy: self._ensured(SandboxSettings(image=image, pull=policy)),
            progress=lambda text: self.progress(text),
        )

    @classmethod
    async def at(cls, address: Address) -> DockerEngine:
        """Connect to an engine. Raises EngineNotReachable, EnginePermissionDenied, EngineTimeout.

        Within PROBE_SECONDS if nobody answers.
        """

        def greet() -> tuple[str, str]:
            with _translated(address.url, "version", "", PROBE_SECONDS):
                return greeting(address, PROBE_SECONDS)

        def describe() -> EngineDescription:
            with _translated(address.url, "info", "", seconds):
                asking = client(address, speaks, seconds)
                try:
                    return _described(asking.info(), server, address)
                finally:
                    asking.close()

        call, seconds = "version", PROBE_SECONDS
        try:
            async with asyncio.timeout(seconds):
                server, speaks = await in_thread(greet)
            call, seconds = "info", PODMAN_SECONDS if server.startswith(PODMAN) else PROBE_SECONDS
            async with asyncio.timeout(seconds):
                description = await in_thread(describe)
        except TimeoutError as error:
            raise EngineTimeout(address.url, call, seconds) from error
        # With the version known a new client asks nothing.
        return cls(partial(client, address, speaks), description, address)

    @classmethod
    async def from_environment(cls) -> DockerEngine:
        """Connect to where the `docker` command would, and nowhere else. Raises what `at` raises."""
        environment, home = os.environ, Path.home()
        named = addresses.of_docker_command(environment, home)
        return await cls.at(named or addresses.docker_sockets(environment, home)[0])

    async def describe(self) -> EngineDescription:
        return self._description

    async def ensure_image(self, settings: SandboxSettings) -> str:
        self._sweep_once()
        if isinstance(image := settings.image, str):
            return await self._in_thread(lambda: self._ensured(settings), "pull", image, PULL_SECONDS)
        policy = settings.pull
        return await self._in_thread(lambda: self._local.ensure(image, policy), "build", str(image), MAKE_SECONDS)

    async def start(self, settings: SandboxSettings, name: str, *, identity: str = "", keep: bool = False) -> Started:
        self._require_own()
        self._sweep_once()
        given_up = threading.Event()
        labels = _labels(current_run(), identity, keep=keep)
        async with self._calls:
            operation = Operation("start", name)
            await self._require_answering(operation)
            thread = _begun(operation, lambda: self._start(settings, name, labels, given_up))
            try:
                attached = await self._bounded(asyncio.shield(thread), operation, START_SECONDS)
                return Started(attached.container, attached.transport.stream())
            except BaseException:
                given_up.set()
                undoing = asyncio.create_task(self._undo(thread))
                self._undoing.add(undoing)
                undoing.add_done_callback(self._undoing.discard)
                # Over when the request under way is; a second cancellation ends the waiting, not the undoing.
                await asyncio.wait([undoing], timeout=PROBE_SECONDS if self._hangs else CALL_SECONDS)
                raise

    async def alive(self, container: Container) -> bool:
        def running() -> bool:
            with self._call("inspect", container.name):
                try:
                    return bool(self._api.inspect_container(container.id)["State"]["Running"])
                except docker.errors.NotFound:
                    return False

        return await self._in_thread(running, "inspect", container.name)

    async def post_mortem(self, container: Container) -> str:
        return await self._in_thread(lambda: self._post_mortem(container), "events", container.name)

    async def changes(self, container: Container) -> list[RootChange]:
        def changes() -> list[RootChange]:
            with self._call("changes", container.name):
                listed: list[dict[str, Any]] = self._api.diff(container.id) or []  # the engine says null for none
            return [RootChange(PurePosixPath(each["Path"]), _CHANGE_KINDS[each["Kind"]]) for each in listed]

        return await self._in_thread(changes, "changes", container.name)

    async def remove(self, container: Container) -> None:
        def remove() -> None:
            volumes = container.named_volumes
            if volumes is None:
                volumes = self._volumes_of(container)
            self._remove(container.id, container.name)
            for volume in volumes:
                self._remove_unused_volume(volume)

        await self._in_thread(remove, "remove", container.name)

    async def commit(self, container: Container, name: str, labels: Mapping[str, str]) -> str:
        return await self._in_thread(
            lambda: self._commit(container, name, labels), "commit", container.name, COMMIT_SECONDS
        )

    async def images(self, label: str) -> list[StoredImage]:
        def images() -> list[StoredImage]:
            with self._call("images", label):
                found = self._api.images(filters={"label": label})
            return [StoredImage(image["Id"], float(image["Created"]), image["Labels"] or {}) for image in found]

        return await self._in_thread(images, "images", label)

    async def remove_image(self, image: str) -> None:
        await self._in_thread(lambda: self._remove_image(image), "image remove", image)

    async def remove_unused_images(self, seconds: float) -> None:
        await self._in_thread(lambda: self._local.unused(seconds, remove=True), "image remove", "unused images")

    async def create_network(self, name: str) -> None:
        await self._in_thread(lambda: self._create_network(name), "network create", name)

    async def connect(self, container: Container, network: str, name: str) -> None:
        await self._in_thread(lambda: self._connect_to(container, network, name), "network connect", container.name)

    async def disconnect(self, container: Container, network: str) -> None:
        await self._in_thread(lambda: self._disconnect(container.id, network), "network disconnect", container.name)

    async def remove_network(self, name: str) -> None:
        await self._in_thread(lambda: self._remove_network(name), "network remove", name)

    async def sweep(self) -> None:
        """Remove what killed runs of this host left on the engine: containers, networks, volumes. Never a live run's.

        And the agents of other versions that this host has not used for a day.
        """
        await self._in_thread(self._sweep, "sweep", "containers of killed runs")

    async def close(self) -> None:
        if self._process != os.getpid():
            return
        if self._sweeping is not None:
            await asyncio.wait([self._sweeping])
            await self._quietly(self._remove_own_volumes, PROBE_SECONDS)
        self._api.close()
        if self._sweeping is not None:
            self._sweeping.result()  # a defect of ours shows itself here

    # --- calls ----------------------------------------------------------------------------------------------------

    async def _in_thread(
        self, function: Callable[[], Result], call: str, subject: str, seconds: float | None = None
    ) -> Result:
        """Run blocking calls in a thread; the bound counts from when they begin, not from when they had to queue."""
        self._require_own()
        async with self._calls:
            operation = Operation(call, subject)
            await self._require_answering(operation)
            thread = _begun(operation, function)
            return await self._bounded(thread, operation, CALL_SECONDS if seconds is None else seconds)

    async def _bounded(self, thread: asyncio.Future[Result], operation: Operation, seconds: float) -> Result:
        """Wait for a thread. Its requests have bounds of their own, but an answer that trickles in outwits those."""
        try:
            with operation.told(lambda text: self.notify(text)):
                async with asyncio.timeout(seconds):
                    return await thread
        except TimeoutError as error:
            self._hangs = True
            raise EngineTimeout(self._address.url, operation.call, seconds, operation.subject) from error
        except asyncio.CancelledError:
            self._hangs = self._hangs or operation.is_stuck
            raise

    async def _require_answering(self, operation: Operation) -> None:
        """Spare everyone the whole bound of a call, once the engine has kept somebody waiting: ask it first.

        A run whose engine hangs would else wait for it in each test, and again in each step of its end.
        """
        if not self._hangs:
            return
        if time.monotonic() - self._unanswered > PROBE_SECONDS:
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    await asyncio.wait([in_thread(self._api.ping)])
            except TimeoutError:
                self._unanswered = time.monotonic()
            else:
                self._hangs = False  # it answers, or nobody is there, which the call itself will find
                return
        raise EngineTimeout(self._address.url, operation.call, PROBE_SECONDS, operation.subject)

    def _require_own(self) -> None:
        """Raise MadeBeforeFork in a forked process: it and its parent would read each other's answers."""
        if self._process != os.getpid():
            raise MadeBeforeFork(f"the connection to {self._address.url}", self._process)

    @contextmanager
    def _call(self, call: str, subject: str, seconds: float = CALL_SECONDS) -> Iterator[None]:
        """Surround one call to the engine: errors translated, and logged with its duration."""
        waiting.begin(call, subject)
        with _translated(self._address.url, call, subject, seconds):
            yield

    # --- start ----------------------------------------------------------------------------------------------------

    def _start(
        self, settings: SandboxSettings, name: str, labels: dict[str, str], given_up: threading.Event
    ) -> _Attached:
        """Create, attach, start. Whoever sets `given_up` is spared the rest, and nothing stays behind."""
        image = self._inspected(settings)
        self._require_heeded(settings)
        agent = agent_binary(self._description.architecture)
        volume = self._agent_volume(agent, image["Id"])
        mounts = engine_mounts(settings, self._description.endpoint, _labels(current_run()))
        volumes = volume_names(settings)
        self._leave("container", name, labels.get(LABEL_IDENTITY, ""))
        with ExitStack() as undo:
            undo.callback(self._remove_volumes_quietly, volumes)
            # Before it is asked for: a create whose answer is lost has made a container all the same.
            undo.callback(self._remove_quietly, name)
            try:
                checked = self._has_health_check(image)
                container = self._created(settings, name, volume, mounts, labels, checked=checked)
            except EngineRequestFailed as error:
                if NAME_TAKEN in error.reason:
                    undo.pop_all()  # the name is taken: that container is not ours to remove
                    undo.callback(self._remove_volumes_quietly, volumes)
                    self._take_back(name)
                raise
            _check(given_up)
            transport = self._attached(container, name)
            undo.callback(transport.close)
            _check(given_up)
            try:
                with self._call("start", name):
                    self._api.start(container)
            except EngineRequestFailed as error:
                if (known := _why_not_started(error.reason, settings)) is not None:
                    raise known from error
                raise
            _check(given_up)
            undo.pop_all()
        if LABEL_KEPT in labels:
            self._take_back(name)
        places = {settings.workspace, *(mount.place for mount in settings.mounts)}
        described = _container(container, name, str(settings.image), image, places)
        return _Attached(replace(described, named_volumes=volumes), transport)

    def _require_heeded(self, settings: SandboxSettings) -> None:
        """Refuse what Podman takes and leaves out without a word: limits, and another kernel, that were not there."""
        if not self._podman:
            return
        if settings.disk is not None:
            reason = "Podman's volumes, and so the workspace, have no size (the engine's storage)"
            raise LimitNotAvailable("disk", shown_size(settings.disk), reason)
        if settings.runtime:
            with self._call("info", ""):
                only = str(self._api.info()["DefaultRuntime"])
            if settings.runtime != only:
                expected = f"one that Podman's own configuration names: {only}"
                raise InvalidSetting("runtime", settings.runtime, expected)

    def _has_health_check(self, image: Mapping[str, Any]) -> bool:
        if not self._podman:
            return "Healthcheck" in (image["Config"] or {})
        # Podman tells of it in its own API alone.
        identity = str(image["Id"]).removeprefix("sha256:")
        with self._call("image inspect", identity):
            url = f"{self._api.base_url}/v{self._api.api_version}/libpod/images/{identity}/json"
            return "Healthcheck" in self._api.get(url, timeout=CALL_SECONDS).json()

    async def _undo(self, thread: asyncio.Future[_Attached]) -> None:
        """Wait for a start that nobody wants any more, and take back what it made."""
        await asyncio.wait([thread])
        if not thread.cancelled() and thread.exception() is None:
            attached = thread.result()  # it was through at the very moment its caller gave up
            attached.transport.close()
            await in_thread(lambda: self._remove_quietly(attached.container.name))
            await in_thread(lambda: self._remove_volumes_quietly(attached.container.named_volumes or ()))

    def _created(
        self,
        settings: SandboxSettings,
        name: str,
        volume: str,
        mounts: list[dict[str, Any]],
        labels: dict[str, str],
        *,
        checked: bool,
    ) -> str:
        """Create the container and return its id. checked: the image has a health check."""
        executable = not settings.hardened
        host = self._api.create_host_config(
            auto_remove=True,
            log_config=docker.types.LogConfig(type="none"),
            network_mode=settings.network or "none",
            mem_limit=settings.memory,
            memswap_limit=settings.memory,  # the sum of both: no swap
            nano_cpus=int(min(settings.cpus, self._description.cores) * 1e9),  # the engine refuses more than it has
            pids_limit=settings.pids,
            security_opt=["no-new-privileges"],
            cap_drop=["ALL"] if settings.hardened else None,
            cap_add=list(AGENT_CAPABILITIES) if settings.hardened else None,
            read_only=settings.hardened,
            runtime=settings.runtime or None,
            storage_opt=None if settings.disk is None else {"size": str(settings.disk)},
            init=False,
            mounts=[
                docker.types.Mount(AGENT_DIRECTORY, volume, type="volume", read_only=True),
                docker.types.Mount(
                    str(settings.workspace),
                    None,
                    type="volume",
                    labels=_labels(current_run()),  # of one to be kept too: nobody's while a container has it
                    driver_config=_sized(settings.disk),
                ),
                *cast("list[docker.types.Mount]", mounts),  # which are dicts
            ],
            tmpfs={
                **{
                    place: tmpfs_options(int(settings.memory * part), 0o1777, execute=executable)
                    for place, part in SCRATCH.items()
                },
                **engine_tmpfs(settings),
            },
        )
        with self._call("create", name):
            try:
                with self._volumes_made(mounts):
                    created = self._api.create_container(
                        self._name(settings),
                        name=name,
                        entrypoint=[AGENT_PROGRAM],
                        command=["stay"] if LABEL_KEPT in labels else [],
                        user="0:0",
                        working_dir="/",
                        stdin_open=True,  # and not detached, which is what makes docker-py ask for StdinOnce
                        tty=False,
                        stop_signal="SIGTERM",  # what the agent heeds; the image's own is for its program
                        # It would start a process in the sandbox now and then. Podman wants systemd for any, also this.
                        healthcheck={"test": ["NONE"]} if checked else None,
                        labels=labels,
                        host_config=host,
                    )
            except docker.errors.ImageNotFound as error:
                raise ImageNotAvailable(str(settings.image), settings.pull.value, "removed meanwhile") from error
            except docker.errors.APIError as error:
                if (invalid := refused(settings.mounts, str(error.explanation))) is not None:
                    raise invalid from error
                if settings.runtime and "runtime" in str(error.explanation).lower():
                    known = ", ".join(sorted(self._api.info().get("Runtimes") or ())) or "its default one"
                    raise InvalidSetting("runtime", settings.runtime, f"one that the engine has: {known}") from error
                if settings.disk is None or not any(word in str(error.explanation) for word in NO_QUOTA):
                    raise
                reason = f"{_one_line(str(error.explanation))} (the engine's storage)"
                raise LimitNotAvailable("disk", shown_size(settings.disk), reason) from error
        return str(created["Id"])

    @contextmanager
    def _volumes_made(self, mounts: Sequence[Mapping[str, Any]]) -> Iterator[None]:
        """Make named volumes before the container that is to have them, with which Podman would make them bare.

        Without labels, driver and options, that is.
        """
        volumes = [mount for mount in mounts if mount["Type"] == "volume"] if self._podman else []
        # Until the container is there nobody has them, and whoever closes another sandbox may remove them.
        with self._volumes_held() if volumes else nullcontext():
            for volume in volumes:
                options = volume["VolumeOptions"]
                driver = options.get("DriverConfig", {})
                self._api.create_volume(
                    volume["Source"], driver.get("Name"), driver.get("Options"), labels=options["Labels"]
                )
            yield

    @contextmanager
    def _volumes_held(self) -> Iterator[None]:
        """Keep other processes of this host from making or removing named volumes, where making takes two steps."""
        if not self._podman:
            yield
            return
        try:
            with locked(self._folder / "volumes.lock", CALL_SECONDS):
                yield
        except filelock.Timeout as error:
            raise EngineTimeout(self._address.url, "wait for others' volumes", CALL_SECONDS) from error

    def _attached(self, identity: str, name: str) -> _Transport:
        """Open the container's byte stream, before anything runs in it."""
        with self._call("attach", name):
            opened = self._api.attach_socket(identity, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        return _transport(opened)

    # --- what is kept -----------------------------------------------------------------------------------------------

    async def rejoin(self, kept: KeptSandbox) -> Started | None:
        attached = await self._in_thread(lambda: self._rejoined(kept), "exec", kept.name)
        return None if attached is None else Started(attached.container, attached.transport.stream())

    async def kept(self) -> list[KeptSandbox]:
        def kept() -> list[KeptSandbox]:
            with self._call("list", "kept containers"):
                found = self._api.containers(filters={"label": LABEL_IDENTITY})
            return [
                KeptSandbox(entry["Id"], name, entry["Image"], entry["Labels"][LABEL_IDENTITY])
                for name, entry in _named(found)
                if _is_kept(entry["Labels"])
            ]

        return await self._in_thread(kept, "list", "kept containers")

    async def sandboxes(self) -> list[FoundSandbox]:
        def sandboxes() -> list[FoundSandbox]:
            with self._call("list", "sandboxes"):
                found = self._api.containers(all=True, filters={"label": LABEL_IDENTITY})
            return [_found(name, entry) for name, entry in _named(found) if entry["Labels"][LABEL_IDENTITY]]

        return await self._in_thread(sandboxes, "list", "sandboxes")

    def _rejoined(self, kept: KeptSandbox) -> _Attached | None:
        """Attach to a process that lends its streams to the agent: the container's own input is open only once."""
        with self._call("inspect", kept.name):
            try:
                found = self._api.inspect_container(kept.id)
            except docker.errors.NotFound:
                return None
        if (found["Config"]["Labels"] or {}).get(LABEL_IDENTITY) != kept.identity:
            raise NotOurs(kept.name)
        if not found["State"]["Running"]:
            return None
        with self._call("image inspect", kept.image):
            image = self._api.inspect_image(found["Image"])  # type: ignore[no-untyped-call]
        with self._call("exec", kept.name):
            command = [AGENT_PROGRAM, "join", "1"]
            process = self._api.exec_create(found["Id"], command, stdin=True, user="0:0", workdir="/")
            opened = self._api.exec_start(process["Id"], socket=True)
        described = _container(found["Id"], found["Name"].lstrip("/"), kept.image, image)
        return _Attached(replace(described, named_volumes=_named_volumes(found["Mounts"])), _transport(opened))

    # --- the agent's volume ---------------------------------------------------------------------------------------

    def _agent_volume(self, agent: AgentBinary, image: str) -> str:
        """Return the name of a volume that holds the agent, filling it if this engine has none.

        A marker on this host says which volume was filled. It names the volume's creation, not only its name: after a
        prune there is a new one of the same name, which is empty. `image`: any, for a container that never starts.
        """
        name = _agent_volume_name(agent)
        marker = self._folder / name
        if marker.exists():
            with writing(self._folder):
                marker.touch()  # used, for the sweep
            if _read(marker) == self._volume_creation(name, agent):
                return name
        try:
            with locked(marker.with_name(f"{name}.lock"), CALL_SECONDS):
                creation = self._volume_creation(name, agent)
                if _read(marker) != creation:
                    self._fill(name, agent, image)
                    with writing(self._folder):
                        marker.touch(PRIVATE_FILE)
                        marker.write_text(creation)
        except filelock.Timeout as error:
            raise EngineTimeout(self._address.url, "fill the agent volume", CALL_SECONDS, name) from error
        return name

    def _volume_creation(self, name: str, agent: AgentBinary) -> str:
        """Tell this volume from others of its name, earlier or later; make it if there is none."""
        with self._call("volume inspect", name):
            try:
                volume = self._api.inspect_volume(name)
            except docker.errors.NotFound:
                labels = {LABEL_AGENT: agent.build, f"{LABEL_AGENT}.creation": os.urandom(8).hex()}
                self._api.create_volume(name, labels=labels)
                volume = self._api.inspect_volume(name)
        return _creation(volume)

    def _fill(self, volume: str, agent: AgentBinary, image: str) -> None:
        run = current_run()
        name = f"{volume}-{run.id}-{next(_fillings)}"
        mount = docker.types.Mount(AGENT_DIRECTORY, volume, type="volume")
        self._leave("container", name)
        with ExitStack() as undo:
            undo.callback(self._remove_quietly, name)
            with self._call("create", name):
                self._api.create_container(
                    image,
                    name=name,
                    entrypoint=["/"],  # never started; the engine wants something here
                    labels=_labels(run),
                    host_config=self._api.create_host_config(mounts=[mount], network_mode="none"),
                )
            # Another host of the same engine may have filled it and be starting containers from it right now.
            if self._holds(name, agent):
                return
            with self._call("put_archive", name):
                self._api.put_archive(name, AGENT_DIRECTORY, _agent_archive(agent))

    def _holds(self, name: str, agent: AgentBinary) -> bool:
        """Say whether the volume mounted in the container `name` has the very agent already."""
        with self._call("get_archive", name):
            try:
                chunks, _ = self._api.get_archive(name, f"{AGENT_DIRECTORY}/{AGENT_NAME}")
                archive = io.BytesIO(b"".join(chunks))
            except docker.errors.NotFound:
                return False
        with tarfile.open(fileobj=archive) as tar:
            member = tar.extractfile(AGENT_NAME)
            return member is not None and hashlib.sha256(member.read()).hexdigest() == agent.sha256

    # --- images ---------------------------------------------------------------------------------------------------

    def _name(self, settings: SandboxSettings) -> str:
        """Return what the engine knows the image by."""
        return settings.image if isinstance(settings.image, str) else self._local.name(settings.image)

    def _inspected(self, settings: SandboxSettings, reason: str = "not present") -> dict[str, Any]:
        name = self._name(settings)
        with self._call("image inspect", name):
            try:
                return cast("dict[str, Any]", self._api.inspect_image(name))  # type: ignore[no-untyped-call]
            except docker.errors.NotFound as error:
                raise ImageNotAvailable(str(settings.image), settings.pull.value, reason) from error

    def _ensured(self, settings: SandboxSettings) -> str:
        if settings.pull is PullPolicy.NEVER:
            return str(self._inspected(settings, "not present, and pulling is off")["Id"])
        if settings.pull is PullPolicy.MISSING:
            try:
                return str(self._inspected(settings)["Id"])
            except ImageNotAvailable:
                logger.debug("image.missing image=%s", settings.image)
        # One process pulls; the others of this host find the image, or pull what is then the same.
        lock = self._folder / f"image-{_digest(str(settings.image))}.lock"
        try:
            with locked(lock, PULL_SECONDS):
                if settings.pull is PullPolicy.MISSING:
                    try:
                        return str(self._inspected(settings)["Id"])
                    except ImageNotAvailable:
                        logger.debug("image.pull image=%s", settings.image)
                self._pull(settings)
        except filelock.Timeout as error:
            raise EngineTimeout(self._address.url, "pull", PULL_SECONDS, str(settings.image)) from error
        return str(self._inspected(settings, "pulled, and gone again")["Id"])

    def _pull(self, settings: SandboxSettings) -> None:
        image = str(settings.image)
        layers: dict[str, tuple[int, int]] = {}
        try:
            with self._call("pull", image, PULL_SECONDS):
                failure = None
                for told in self._api.pull(image, stream=True, decode=True):  # to its end: or it keeps its socket
                    failure = told.get("error", failure)
                    self.progress(f"pulling {image}{_pulled(told, layers)}")
                if failure is not None:
                    raise ImageNotAvailable(image, settings.pull.value, _one_line(failure))
        except EngineRequestFailed as error:
            raise ImageNotAvailable(image, settings.pull.value, error.reason) from error
        finally:
            self.progress("")

    def _commit(self, container: Container, name: str, labels: Mapping[str, str]) -> str:
        with self._call("image inspect", container.image):
            config = dict(self._api.inspect_image(container.image_digest)["Config"] or {})  # type: ignore[no-untyped-call]
        # What is left out here the engine takes from the container, whose entrypoint is the agent and whose labels say
        # that it may be swept.
        config["Entrypoint"] = config.get("Entrypoint") or []
        blank = dict.fromkeys((LABEL_RUN, LABEL_HOST, LABEL_VERSION, LABEL_IDENTITY, LABEL_KEPT), "")
        config["Labels"] = {**(config.get("Labels") or {}), **blank, **labels}
        changes = _instructions(config) if self._podman else None
        repository, _, tag = name.partition(":")
        api = self._connect(COMMIT_SECONDS)
        try:
            with self._call("commit", container.name, COMMIT_SECONDS):
                # Not paused: nothing runs there but the agent, which waits.
                made = api.commit(container.id, repository, tag, pause=False, conf=config, changes=changes)
        finally:
            api.close()
        return f"sha256:{str(made['Id']).removeprefix('sha256:')}"

    def _remove_image(self, image: str) -> None:
        with self._call("image remove", image):
            try:
                self._api.remove_image(image)
            except docker.errors.NotFound:
                pass  # gone is what we wanted
            except docker.errors.APIError as error:
                if error.status_code != 409:
                    raise
                logger.debug("image.remove.refused image=%s reason=%s", image, error.explanation)

    # --- the end --------------------------------------------------------------------------------------------------

    def _remove(self, container: str, name: str) -> None:
        with self._call("remove", name):
            try:
                self._force_remove(container)
            except docker.errors.APIError as error:
                # It ended by itself after the engine had looked and before it could kill. Now there is nothing to kill.
                if not any(words in str(error.explanation) for words in NOT_RUNNING):
                    raise
                self._force_remove(container)
        self._take_back(name)

    def _force_remove(self, container: str) -> None:
        try:
            self._api.remove_container(container, force=True, v=True)
        except docker.errors.NotFound:
            pass  # gone is what we wanted
        except docker.errors.APIError as error:
            if error.status_code != 409:
                raise
            # The engine's auto-remove was faster and is still at it: gone means gone, so wait for its end.
            self._removed(container)

    def _removed(self, container: str, timeout: int = CALL_SECONDS) -> None:
        """Wait for the end of a removal that is under way."""
        try:
            self._api.wait(container, timeout=timeout, condition="removed")
        except docker.errors.NotFound:
            pass  # it was over before we asked

    def _remove_quietly(self, name: str) -> None:
        """Remove on the way out of a failure, which must not be hidden by another one."""
        try:
            self._remove(name, name)
        except EngineError as error:
            logger.warning("container.remove.failed name=%s left behind, removed by a later run: %s", name, error)

    def _volumes_of(self, container: Container) -> tuple[str, ...]:
        with self._call("inspect", container.name):
            try:
                return _named_volumes(self._api.inspect_container(container.id)["Mounts"])
            except docker.errors.NotFound:
                return ()  # those of one that is gone the sweep knows

    def _remove_unused_volume(self, name: str) -> None:
        """Remove a volume if it was made for sandboxes and no container has it any more, whoever made those."""
        with self._call("volume remove", name):
            try:
                if LABEL_HOST not in (self._api.inspect_volume(name).get("Labels") or {}):
                    return
                patience = time.monotonic() + VOLUME_SECONDS
                while not self._could_remove_volume(name):
                    if self._api.containers(all=True, filters={"volume": name}, quiet=True):
                        return
                    # The last container that had it is gone, and the engine has not noted that here yet; or one that is
                    # being made has it, and is not listed yet. There is no event for either.
                    if time.monotonic() > patience:
                        raise EngineTimeout(self._description.endpoint, "volume remove", VOLUME_SECONDS, name)
                    time.sleep(VOLUME_POLL)
            except docker.errors.NotFound:
                pass  # gone is what we wanted

    def _could_remove_volume(self, name: str) -> bool:
        try:
            with self._volumes_held():
                self._api.remove_volume(name)
        except docker.errors.APIError as error:
            if error.status_code != 409:
                raise
            return False
        return True

    def _remove_volumes_quietly(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                self._remove_unused_volume(name)
            except EngineError as error:
                logger.warning("volume.remove.failed name=%s left behind, removed by a later run: %s", name, error)

    def _post_mortem(self, container: Container) -> str:
        """Ask the engine's short memory of events: an auto-removed container can't be inspected any more."""
        with self._call("wait", container.name):
            try:
                self._removed(container.id, timeout=PROBE_SECONDS)
            except (requests.exceptions.Timeout, requests.exceptions.ConnectionError):
                return self._state(container)
        facts: list[str] = []
        with self._call("events", container.name):
            for event in self._events_so_far(container.id):
                if event["Type"] == "container":
                    facts += _facts(event["Action"], event["Actor"]["Attributes"])
        return "; ".join([*dict.fromkeys(facts), "removed"])

    def _events_so_far(self, container: str) -> Iterator[dict[str, Any]]:
        chosen = {"container": container}  # and no "type", with which Podman finds none
        if not self._podman:
            # Up to now by the engine's own clock, in fractions of a second: the API takes them, though docker-py only
            # speaks of whole ones, which would miss the last second, or make us wait for its end.
            now = datetime.fromisoformat(self._api.info()["SystemTime"]).timestamp()
            yield from self._api.events(since=0, until=cast("int", now), filters=chosen, decode=True)
            return
        # Podman has nothing until a time that is past; but it can be asked for what there is, which docker-py does not.
        query = {"since": "1", "stream": "false", "filters": json.dumps({"container": [container]})}
        url = f"{self._api.base_url}/v{self._api.api_version}/events"
        for line in self._api.get(url, params=query, timeout=CALL_SECONDS).iter_lines():
            yield json.loads(line)

    def _state(self, container: Container) -> str:
        with self._call("inspect", container.name):
            try:
                state = self._api.inspect_container(container.id)["State"]
            except docker.errors.NotFound:
                return "removed"
        if state["Running"]:
            return "still running"
        facts = ["killed for memory"] if state.get("OOMKilled") else []
        return "; ".join([*facts, f"{state['Status']}, exit code {state['ExitCode']}"])

    # --- networks -------------------------------------------------------------------------------------------------

    def _create_network(self, name: str) -> None:
        if self._podman:
            raise NotWithThisEngine(
                "podman", "let a running container without a network into one", "give the sandboxes of a test no names"
            )
        run = current_run()
        self._leave("network", name)
        with self._call("network create", name):
            self._api.create_network(
                name,
                driver="bridge",
                internal=True,
                options={NO_ADDRESS: "true"},  # else the engine's machine, and all that listens there, is reached
                labels={LABEL_RUN: run.id, LABEL_HOST: run.host, LABEL_VERSION: _version()},
            )

    def _connect_to(self, container: Container, network: str, name: str) -> None:
        with self._call("network connect", container.name):
            networks = self._api.inspect_container(container.id)["NetworkSettings"]["Networks"]
            if NO_NETWORK in networks:  # with which the engine allows no other
                self._api.disconnect_container_from_network(container.id, NO_NETWORK)
            self._api.connect_container_to_network(container.id, network, aliases=[name])

    def _disconnect(self, container: str, network: str) -> None:
        if self._podman:
            return  # it was never in one, and Podman refuses even to say so
        with self._call("network disconnect", container):
            try:
                self._api.disconnect_container_from_network(container, network, force=True)
            except docker.errors.NotFound:
                pass  # one of them is gone
            except docker.errors.APIError as error:
                if "is not connected" not in str(error.explanation):
                    raise

    def _remove_network(self, name: str) -> None:
        with self._call("network remove", name):
            try:
                inside = self._api.inspect_network(name)["Containers"] or {}
                for container in inside:
                    self._disconnect(container, name)
                self._api.remove_network(name)
            except docker.errors.NotFound:
                pass  # gone is what we wanted
        self._take_back(name)

    # --- what killed runs leave ------------------------------------------------------------------------------------

    def _ending_of_one(self) -> Callable[[str, str], bool]:
        """What an heir ends things with: as little of the client as possible, which takes a second to import."""
        if self._address.path is not None:
            return partial(end_by_socket, str(self._address.path), self._api.api_version)
        return partial(_end, self._connect)

    def _leave(self, kind: str, name: str, identity: str = "") -> None:
        """Let it be ended after us. Before it is asked for: it may come to be after our end."""
        self._left[name] = f"{kind} {name} {identity}"
        heir.leave(self._ending, self._left[name])

    def _take_back(self, name: str) -> None:
        if (subject := self._left.pop(name, None)) is not None:
            heir.take_back(self._ending, subject)

    def _sweep_once(self) -> None:
        """Sweep with the first use, beside it: nobody waits for the removal of what others left."""
        if self._sweeping is None:
            self._sweeping = asyncio.create_task(self._quietly(self._sweep))

    async def _quietly(self, sweep: Callable[[], None], seconds: float | None = None) -> None:
        try:
            await self._in_thread(sweep, "sweep", "what was left behind", seconds)
        except SandboxError as error:
            # No reason to fail for those who only want to start something; an engine in trouble will tell them itself.
            logger.warning("sweep.failed containers and volumes may be left behind: %s", error)

    def _sweep(self) -> None:
        self._remove_each(itertools.chain(self._left_by_dead_runs(), self._old_agents(AGENT_UNUSED_SECONDS)))
        run = current_run()
        for dead in run.dead():
            run.forget(dead)

    def _left_by_dead_runs(self) -> Iterator[_Left]:
        """Yield what it is, and what removes it. Each kind is listed when those before are gone that may use it."""
        run = current_run()
        with self._call("list", "containers of this host"):
            found = self._api.containers(all=True, filters={"label": f"{LABEL_HOST}={run.host}"})
        for name, entry in _named(found):
            if run.is_dead(entry["Labels"][LABEL_RUN]) and not _is_kept(entry["Labels"]):
                yield f"container {name}, left by a run that was killed", partial(self._remove, entry["Id"], name)
        with self._call("list", "networks of this host"):
            networks = self._api.networks(filters={"label": f"{LABEL_HOST}={run.host}"})
        for network in networks:
            if run.is_dead(network["Labels"][LABEL_RUN]):
                what = f"network {network['Name']}, left by a run that was killed"
                yield what, partial(self._remove_network, network["Id"])
        yield from self._unused_volumes(f"{LABEL_HOST}={run.host}", lambda labels: run.is_dead(labels[LABEL_RUN]))

    async def leftovers(self, unused: float, *, remove: bool) -> list[str]:
        def leftovers() -> list[str]:
            found = []
            for what, remove_it in itertools.chain(self._left_by_dead_runs(), self._old_agents(unused)):
                found.append(what)
                if remove:
                    remove_it()
            return [*found, *self._local.unused(unused, remove=remove)]

        return await self._in_thread(leftovers, "sweep", "what nobody needs", START_SECONDS)

    async def facts(self) -> EngineFacts:
        def facts() -> EngineFacts:
            with self._call("info", ""):
                version, info = self._api.version(), self._api.info()
            facts = _facts_of(version, info)
            # Podman lists all that it knows of, and takes none but its own.
            return replace(facts, runtimes=(str(info["DefaultRuntime"]),)) if self._podman else facts

        return await self._in_thread(facts, "info", "")

    def _remove_own_volumes(self) -> None:
        """Remove those of containers that an engine has removed without them, as it does when it was killed itself."""
        self._remove_each(self._unused_volumes(f"{LABEL_RUN}={current_run().id}", lambda _: True))

    def _remove_each(self, left: Iterable[_Left]) -> None:
        for what, remove in left:
            logger.debug("sweep %s", what)
            remove()

    def _unused_volumes(self, label: str, left: Callable[[Mapping[str, str]], bool]) -> Iterator[_Left]:
        with self._call("list", "volumes of this host"):
            found = self._api.volumes(filters={"label": label, "dangling": True})["Volumes"] or []
        name, _, value = label.partition("=")
        for volume in found:
            labels = volume["Labels"] or {}
            # Looked at again: to Podman two filters mean one or the other.
            if labels.get(name) == value and left(labels):
                yield (
                    f"volume {volume['Name']}, left by a run that was killed",
                    partial(self._remove_volume, volume["Name"]),
                )

    def _remove_volume(self, name: str) -> bool:
        """Remove a volume, or say no if a container has it."""
        with self._call("volume remove", name):
            try:
                return self._could_remove_volume(name)
            except docker.errors.NotFound:
                return True

    def _old_agents(self, unused: float) -> Iterator[_Left]:
        """Yield the volumes of other versions' agents that this host has filled, and not used for so many seconds."""
        current = _agent_volume_name(agent_binary(self._description.architecture))
        for marker in self._folder.glob(f"{AGENT_VOLUME}-*"):
            if marker.suffix != ".lock" and marker.name != current and _age(marker) > unused:
                yield f"volume {marker.name}, of another version's agent", partial(self._remove_old_agent, marker)

    def _remove_old_agent(self, marker: Path) -> None:
        with self._call("volume inspect", marker.name):
            try:
                ours = _read(marker) == _creation(self._api.inspect_volume(marker.name))
            except docker.errors.NotFound:
                ours = False
        if not ours or self._remove_volume(marker.name):  # another host's is left to it
            logger.debug("sweep.agent name=%s", marker.name)
            marker.unlink(missing_ok=True)
            marker.with_name(f"{marker.name}.lock").unlink(missing_ok=True)


# --- pure, or nearly --------------------------------------------------------------------------------------------------


class _GivenUp(SandboxError):
    """A start whose caller has gone; nobody sees it."""


_LONG_ID = re.compile("[0-9a-f]{64}")  # of anything; volumes that have no name are called so, too

_CHANGE_KINDS = (ChangeKind.MODIFIED, ChangeKind.ADDED, ChangeKind.REMOVED)  # the engine's numbers for them

_fillings = itertools.count(1)  # two engines in one process may fill at once, and a container's name is only once


def _container(
    identity: str, name: str, image_name: str, image: Mapping[str, Any], places: Collection[PurePosixPath] = ()
) -> Container:
    """Describe a container by the image that it was made from, as the engine has inspected that.

    places: where it has something else in place of a volume of the image.
    """
    config = image["Config"] or {}
    program = ImageProgram(
        entrypoint=tuple(config.get("Entrypoint") or ()),
        arguments=tuple(config.get("Cmd") or ()),
        directory=config.get("WorkingDir") or "/",
        stop_signal=config.get("StopSignal") or "SIGTERM",
    )
    volumes = tuple(path for path in config.get("Volumes") or () if PurePosixPath(path) not in places)
    return Container(identity, name, image_name, image["Id"], config.get("User") or "", program, volumes)


def _labels(run: Run, identity: str = "", *, keep: bool = False) -> dict[str, str]:
    """What a sweep goes by, and those who rejoin."""
    labels = {LABEL_RUN: run.id, LABEL_HOST: run.host, LABEL_VERSION: _version()}
    if identity:
        labels[LABEL_IDENTITY] = identity
    if keep:
        labels[LABEL_KEPT] = identity
    return labels


def _named(listed: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield what an engine lists of containers, with their names.

    One without a name is gone: Docker, killed and started again, may list for ever what it removed meanwhile.
    """
    for entry in listed:
        if entry["Names"]:
            yield entry["Names"][0].lstrip("/"), entry


def _found(name: str, entry: Mapping[str, Any]) -> FoundSandbox:
    labels = entry["Labels"]
    return FoundSandbox(
        id=entry["Id"],
        name=name,
        image=entry["Image"],
        identity=labels[LABEL_IDENTITY],
        run=labels.get(LABEL_RUN, ""),
        host=labels.get(LABEL_HOST, ""),
        created=float(entry["Created"]),
        running=entry["State"] == "running",
        kept=bool(labels.get(LABEL_KEPT)),
    )


def _is_kept(labels: Mapping[str, str]) -> bool:
    """Say whether a container outlives its run, by its labels or by what was noted later."""
    identity = labels.get(LABEL_IDENTITY, "")
    return bool(labels.get(LABEL_KEPT)) or KeptNotes().find(identity) is not None


def _named_volumes(mounts: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The names of a user's volumes in an engine's list of a container's mounts."""
    volumes = [mount for mount in mounts if mount["Type"] == "volume" and mount["Destination"] != AGENT_DIRECTORY]
    return tuple(sorted({volume["Name"] for volume in volumes if not _LONG_ID.fullmatch(volume["Name"])}))


def _why_not_started(reason: str, settings: SandboxSettings) -> SandboxError | None:
    """Return what a user can act upon, where an OCI runtime's words are known."""
    if AGENT_PROGRAM in reason and "permission denied" in reason:
        return SandboxStartFailed(str(settings.image), "starting its agent", NO_EXECUTION)
    if "error mounting" in reason and f'at "{settings.workspace}"' in reason:
        return InvalidSetting(
            "workspace", str(settings.workspace), "a directory on which the engine can mount a volume"
        )
    return None


def _agent_volume_name(agent: AgentBinary) -> str:
    return f"{AGENT_VOLUME}-{agent.sha256[:12]}"


def _creation(volume: Mapping[str, Any]) -> str:
    # Not the engine's CreatedAt, if it can be helped: that has whole seconds, and moves when a first file comes.
    return (volume.get("Labels") or {}).get(f"{LABEL_AGENT}.creation") or str(volume.get("CreatedAt"))


def _facts_of(version: Mapping[str, Any], info: Mapping[str, Any]) -> EngineFacts:
    """Each is what an engine may leave out: then it is not said to be wrong."""
    status = {str(row[0]): str(row[1]) for row in info.get("DriverStatus") or ()}
    limits = {"memory": "MemoryLimit", "cpus": "CpuCfsQuota", "pids": "PidsLimit"}
    return EngineFacts(
        api_version=str(version.get("ApiVersion", "")),
        storage=str(info.get("Driver", "")),
        backing=status.get("Backing Filesystem", ""),
        cgroups=str(info.get("CgroupVersion", "")),
        cgroup_driver=str(info.get("CgroupDriver", "")),
        missing_limits=tuple(limit for limit, key in limits.items() if info.get(key) is False),
        security=tuple(
            str(option).partition(",")[0].removeprefix("name=") for option in info.get("SecurityOptions") or ()
        ),
        runtimes=tuple(sorted(info.get("Runtimes") or ())),
    )


def _sized(disk: int | None) -> docker.types.DriverConfig | None:
    return None if disk is None else docker.types.DriverConfig("local", {"size": str(disk)})


def _end(connect: Connect, kind: str, name: str) -> bool:
    """End what was left to an heir, and say whether it was there."""
    api = connect(CALL_SECONDS)
    try:
        if kind == "container":
            api.remove_container(name, force=True, v=True)
        else:
            api.remove_network(name)
    except _CLIENT_ERRORS:
        return False
    finally:
        api.close()
    return True


def _check(given_up: threading.Event) -> None:
    if given_up.is_set():
        raise _GivenUp


def _begun(operation: Operation, function: Callable[[], Result]) -> asyncio.Future[Result]:
    def run() -> Result:
        operation.serve()
        return function()

    return in_thread(run)


def _described(info: Mapping[str, Any], server: str, address: Address) -> EngineDescription:
    podman = server.startswith(PODMAN)
    return EngineDescription(
        name="podman" if podman else "docker",
        version=info["ServerVersion"],
        endpoint=address.url,
        architecture=ALIASES.get(info["Architecture"], info["Architecture"]),
        # Podman has another one in each answer.
        id=_digest(f"{info['Name']}\0{info['DockerRootDir']}") if podman else info["ID"],
        cores=int(info["NCPU"]),
        memory=int(info["MemTotal"]),
        source=address.source,
    )


def _uses_buildkit(description: EngineDescription, api_version: str) -> bool:
    """Say whether to build with BuildKit: where the engine has it, unless DOCKER_BUILDKIT=0, as for `docker build`.

    Podman builds in its own way, which knows most of what BuildKit does.
    """
    there = description.name == "docker" and docker.utils.version_gte(api_version, BUILDKIT_API)
    return there and os.environ.get("DOCKER_BUILDKIT", "1").lower() not in ("0", "false")


def _transport(opened: Any) -> _Transport:
    """Take the bare connection out of what attach_socket returns: the one place beneath docker-py's documented surface.

    It hands out a `SocketIO` for unix:// and http://, and an `SSLSocket` for https://. Each bypasses http.client's
    buffer, in which bytes that came together with the response's header would be lost. None do: an agent is silent
    until it is spoken to.
    """
    sock = cast("Any", opened)._sock if isinstance(opened, socket.SocketIO) else opened
    # In a reference cycle, which the garbage collector would take apart in an order that http.client complains of.
    response = cast("Any", opened)._response

    def close() -> None:
        end_socket(sock)
        response.close()

    return _Transport(lambda: SocketStream(sock, response.close), close)


def _instructions(config: Mapping[str, Any]) -> list[str]:
    """Return an image's configuration as lines of a Dockerfile, which is how Podman takes it."""
    lines = [f"{name.upper()} {json.dumps(config[name] or [])}" for name in ("Entrypoint", "Cmd") if name in config]
    lines += [f"ENV {variable}" for variable in config.get("Env") or ()]
    lines += [f"LABEL {json.dumps(name)}={json.dumps(text)}" for name, text in config["Labels"].items()]
    lines += [f"USER {config.get('User') or '0:0'}", f"WORKDIR {config.get('WorkingDir') or '/'}"]
    return lines


def _agent_archive(agent: AgentBinary) -> bytes:
    content = agent.path.read_bytes()
    member = tarfile.TarInfo(AGENT_NAME)
    member.mode = 0o555
    member.size = len(content)
    padding = bytes(-len(content) % tarfile.BLOCKSIZE)
    # Two blocks end it, and not the eighteen more that tarfile adds: Podman, which does not read these, fails if it has
    # no room for them at that moment.
    return member.tobuf() + content + padding + bytes(2 * tarfile.BLOCKSIZE)


def _pulled(told: Mapping[str, Any], layers: dict[str, tuple[int, int]]) -> str:
    """Return how much has come of the layers that are known of. layers: what came of each and its size, kept here."""
    detail = told.get("progressDetail") or {}
    if told.get("status") == "Downloading" and "total" in detail:
        layers[told["id"]] = detail["current"], detail["total"]
    elif told.get("status") == "Download complete" and told["id"] in layers:
        size = layers[told["id"]][1]
        layers[told["id"]] = size, size
    came, size = (sum(column) for column in zip(*layers.values(), strict=True)) if layers else (0, 0)
    return f": {came / MEBIBYTE:.0f} of {size / MEBIBYTE:.0f} MiB" if size else ""


def _facts(action: str, attributes: Mapping[str, str]) -> list[str]:
    """What one event tells about a container's end."""
    if action == "oom":
        return ["ran out of memory"]
    if action == "kill":
        return [f"killed through the engine with signal {attributes.get('signal', '?')}"]
    if action == "die":
        return [f"exit code {attributes.get('exitCode', '?')}"]
    return []


@contextmanager
def _translated(endpoint: str, call: str, subject: str, seconds: float) -> Iterator[None]:
    """Log one call, and turn the client's errors into ours."""
    began = time.monotonic()
    logger.debug("engine.%s.started subject=%s", call, subject)
    try:
        yield
    except _CLIENT_ERRORS as error:
        ours = _translation(error, endpoint, call, subject, seconds)
        logger.debug("engine.%s.failed subject=%s seconds=%.3f error=%s", call, subject, time.monotonic() - began, ours)
        raise ours from error
    logger.debug("engine.%s.done subject=%s seconds=%.3f", call, subject, time.monotonic() - began)


def _translation(error: BaseException, endpoint: str, call: str, subject: str, seconds: float) -> EngineError:
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, docker.errors.APIError) and cause.response is not None:
            cause.response.close()  # one that was to be streamed has its socket still
            return EngineRequestFailed(call, subject or endpoint, _one_line(str(cause.explanation or cause)))
    for cause in causes:
        if isinstance(cause, urllib3.exceptions.NewConnectionError):
            continue  # refused, and a subclass of urllib3's ConnectTimeoutError all the same
        if isinstance(cause, (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
            return EngineTimeout(endpoint, call, seconds, subject)
        if isinstance(cause, PermissionError):
            return EnginePermissionDenied(endpoint)
    # The innermost one that the operating system named is what a person can do something about.
    named = [cause for cause in causes if isinstance(cause, OSError) and cause.strerror]
    return EngineNotReachable(endpoint, _one_line(str(named[-1].strerror if named else error)))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those inside it: requests and urllib3 hide the cause among the arguments."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        current = waiting.pop()
        if not any(current is known for known in seen):
            seen.append(current)
            yield current
            inner = [*current.args, getattr(current, "reason", None), current.__context__, current.__cause__]
            waiting += [each for each in inner if isinstance(each, BaseException)]


def _one_line(text: str) -> str:
    line = _LONG_ID.sub(lambda found: found[0][:12], " ".join(text.split()))
    return line if len(line) <= 300 else line[:297] + "..."


def _age(path: Path) -> float:
    """Return the seconds since a file was last touched; 0 for one that another process has just removed."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _version() -> str:
    try:
        return version("pytest-sandbox")
    except PackageNotFoundError:
        return "source"  # imported from a checkout that was never installed
