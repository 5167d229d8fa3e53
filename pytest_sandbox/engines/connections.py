"""docker-py's client for an Address: the files of TLS, the version of the API, and sockets that get closed."""

from __future__ import annotations

import errno
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import docker
import docker.constants
import requests
import urllib3

from ..errors import EngineNotReachable
from .addresses import UNIX, Address
from .companions import CompanionFailed, companion

ANY = "http+docker://"  # what docker-py calls an engine at a Unix socket
CONNECTIONS = 10  # that are kept
QUICK = 1.0  # seconds, in which a companion that can't come up has mostly said so


def client(address: Address, speaks: str, seconds: int) -> docker.APIClient:
    """Return a client whose requests have so many seconds each. speaks: the API's version. It asks nothing yet."""
    tls: docker.TLSConfig | bool = False
    if (files := address.tls) is not None:
        ours = (str(files.certificate), str(files.key)) if files.certificate and files.key else None
        authority = str(files.authority) if files.authority else None
        tls = docker.TLSConfig(client_cert=ours, ca_cert=authority, verify=files.verify)
    url = address.url if address.path is None else f"{UNIX}{address.path}"
    made = docker.APIClient(base_url=url, tls=tls, version=speaks, timeout=seconds)
    # requests would prefer the authorities that REQUESTS_CA_BUNDLE names to the engine's own.
    made.trust_env = address.tls is None
    if address.path is not None:
        made.get_adapter(ANY).close()
        made.mount(ANY, _Adapter(address, seconds))
    return made


def greeting(address: Address, seconds: int) -> tuple[str, str]:
    """Return what the engine calls itself, as `Docker/27.3.1 (linux)`, and the version of the API that it speaks.

    Of its shortest answer: for the one that has this by intent, Podman asks the package manager, which takes a second.
    Raises EngineNotReachable if it is no engine that answers, and the client's own errors.
    """
    asking = client(address, docker.constants.DEFAULT_DOCKER_API_VERSION, seconds)
    try:
        headers = asking.get(f"{asking.base_url}/_ping", timeout=seconds).headers
        return headers["Server"], headers["Api-Version"]
    except KeyError as error:
        raise EngineNotReachable(address.url, "what answers there is no container engine") from error
    finally:
        asking.close()


class _Connection(urllib3.connection.HTTPConnection):
    """To a Unix socket. docker-py's own leaves a socket that nobody listens on to the interpreter to close, whose
    warning would then strike an innocent test.
    """

    def __init__(self, address: Address, seconds: int) -> None:
        super().__init__("localhost", timeout=seconds)
        self._address = address

    def connect(self) -> None:
        assert self._address.path is not None
        try:
            self._connect(self._address.path)
            return
        except (ConnectionRefusedError, FileNotFoundError):
            if not self._address.command:
                raise
        self._connect(_companion_again(self._address.command))

    def _connect(self, path: Path) -> None:
        with ExitStack() as undo:
            sock = undo.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(self.timeout)
            sock.connect(str(path))
            undo.pop_all()
        self.sock = sock


_failures: dict[tuple[str, ...], tuple[float, str]] = {}  # of companions: until when it is given up, and why


def _companion_again(command: tuple[str, ...]) -> Path:
    """Start a companion that has ended in mid-run: a connection of ssh that was cut. Raises ConnectionError.

    One that took long not to come up is given up for as long again: each call would else wait for a network that is
    gone.
    """
    began = time.monotonic()
    until, why = _failures.get(command, (began, ""))
    if began >= until:
        try:
            return companion(command)
        except CompanionFailed as error:
            ended, why = time.monotonic(), str(error)
            if ended - began > QUICK:
                _failures[command] = ended + (ended - began), why
    raise ConnectionError(errno.ENOTCONN, why)  # with no cause, which would be taken for the reason


class _Pool(urllib3.HTTPConnectionPool):
    def __init__(self, address: Address, seconds: int) -> None:
        super().__init__("localhost", timeout=seconds, maxsize=CONNECTIONS)
        self._address, self._seconds = address, seconds

    def _new_conn(self) -> _Connection:
        return _Connection(self._address, self._seconds)


class _Adapter(requests.adapters.HTTPAdapter):
    """Brings what docker-py asks of http+docker:// to a Unix socket."""

    def __init__(self, address: Address, seconds: int) -> None:
        super().__init__()
        self._pool = _Pool(address, seconds)

    def get_connection_with_tls_context(self, *_: object, **__: object) -> urllib3.HTTPConnectionPool:
        return self._pool

    def get_connection(self, *_: object, **__: object) -> urllib3.HTTPConnectionPool:  # of requests before 2.32
        return self._pool

    def request_url(self, request: requests.PreparedRequest, *_: object, **__: object) -> str:
        return request.path_url

    def close(self) -> None:
        super().close()
        self._pool.close()
