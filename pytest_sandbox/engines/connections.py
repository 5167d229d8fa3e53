"""docker-py's client for an Address: the files of TLS, the version of the API, and sockets that get closed."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import docker
import docker.constants
import requests
import urllib3

from ..errors import EngineNotReachable
from .addresses import UNIX, Address

ANY = "http+docker://"  # what docker-py calls an engine at a Unix socket
CONNECTIONS = 10  # that are kept


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
        made.mount(ANY, _Adapter(address.path, seconds))
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

    def __init__(self, path: Path, seconds: int) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        with ExitStack() as undo:
            sock = undo.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(self.timeout)
            sock.connect(str(self._path))
            undo.pop_all()
        self.sock = sock


class _Pool(urllib3.HTTPConnectionPool):
    def __init__(self, path: Path, seconds: int) -> None:
        super().__init__("localhost", timeout=seconds, maxsize=CONNECTIONS)
        self._path, self._seconds = path, seconds

    def _new_conn(self) -> _Connection:
        return _Connection(self._path, self._seconds)


class _Adapter(requests.adapters.HTTPAdapter):
    """Brings what docker-py asks of http+docker:// to a Unix socket."""

    def __init__(self, path: Path, seconds: int) -> None:
        super().__init__()
        self._pool = _Pool(path, seconds)

    def get_connection_with_tls_context(self, *_: object, **__: object) -> urllib3.HTTPConnectionPool:
        return self._pool

    def get_connection(self, *_: object, **__: object) -> urllib3.HTTPConnectionPool:  # of requests before 2.32
        return self._pool

    def request_url(self, request: requests.PreparedRequest, *_: object, **__: object) -> str:
        return request.path_url

    def close(self) -> None:
        super().close()
        self._pool.close()
