"""A proxy before the real engine's socket, to meet a failing network or a dying engine at a step of one's choice."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

DEFAULT_ENGINE = "unix:///var/run/docker.sock"
REFUSAL = b'{"message":"out of order"}'


class Fault(Enum):
    """What becomes of a request.

    REFUSE: answered with status 500; the engine never sees it. LOSE_ANSWER: the engine does it, and the connection ends
    without its answer. HOLD: it waits, before the engine sees it, until `let_go`. HOLD_ANSWER: its answer waits.
    """

    REFUSE = "refuse"
    LOSE_ANSWER = "lose answer"
    HOLD = "hold"
    HOLD_ANSWER = "hold answer"


class EngineProxy:
    """Listens on a Unix socket, or on TCP, with TLS if need be; one request a connection, so that each can be met.

    seen: set when the request that `fault` is for has come, or its answer if that is held.
    """

    def __init__(self, path: Path | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.engine = os.environ.get("DOCKER_HOST", DEFAULT_ENGINE)
        self._faults: list[tuple[re.Pattern[str], Fault]] = []
        self._refusal = REFUSAL
        self._open: list[socket.socket] = []
        self.seen, self._released = threading.Event(), threading.Event()
        self._carrying = [_set_event()]  # the last one is that of connections to come
        if path is not None:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self.endpoint = f"unix://{path}"
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._listener.listen(64)
        self._place = self._listener.getsockname()

    def cut(self) -> None:
        """Let the network reset all connections, and refuse new ones."""
        self._stop_listening()
        for connection in self._open:
            _end(connection)

    def silence(self) -> None:
        """Let the network lose everything from now on, and tell nobody."""
        self._carrying[-1].clear()

    def heal(self) -> None:
        """Let new connections through. Those that were silenced neither side hears of any more."""
        self._carrying.append(_set_event())
        if self._listener.fileno() < 0:
            self._listener = socket.create_server(self._place, backlog=64)
            threading.Thread(target=self._accept, daemon=True).start()

    def fault(self, request: str, fault: Fault, words: str = "") -> None:
        """Let requests whose line (`POST /v1.41/containers/x/start HTTP/1.1`) matches meet `fault`.

        words: of a refusal, from now on.
        """
        self._faults.append((re.compile(request), fault))
        if words:
            self._refusal = json.dumps({"message": words}).encode()

    def let_go(self) -> None:
        self._released.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self.cut()
        for carrying in self._carrying:
            carrying.set()

    def _stop_listening(self) -> None:
        _end(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        listener = self._listener
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        carrying = self._carrying[-1]
        with socket.socket(socket.AF_UNIX) as engine:
            try:
                carrying.wait()
                if self._tls is not None:
                    client = self._tls.wrap_socket(client, server_side=True)
                self._open += [client, engine]
                self._request(client, engine, carrying)
                _end(client)
            except OSError:
                pass  # one of the two is gone, which is what these tests are about
            finally:
                client.close()

    def _request(self, client: socket.socket, engine: socket.socket, carrying: threading.Event) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            received = client.recv(65536)
            if not received:
                return
            head += received
        line = head.split(b"\r\n", 1)[0].decode()
        fault = next((fault for pattern, fault in self._faults if pattern.search(line)), None)
        if fault not in (None, Fault.HOLD_ANSWER):
            self.seen.set()
        if fault is Fault.REFUSE:
            client.sendall(
                b"HTTP/1.1 500 No\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(self._refusal)
            )
            client.sendall(self._refusal)
            return
        if fault is Fault.HOLD:
            self._released.wait()
        if b"\r\nUpgrade:" not in head:
            head = re.sub(rb"\r\nConnection:[^\r]*", b"", head).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        engine.connect(self.engine.removeprefix("unix://"))
        engine.sendall(head)
        _join(client, engine, lambda: self._is_answered(fault), carrying)

    def _is_answered(self, fault: Fault | None) -> bool:
        if fault is Fault.HOLD_ANSWER:
            self.seen.set()
            self._released.wait()
        return fault is not Fault.LOSE_ANSWER


def certificates(directory: Path) -> ssl.SSLContext:
    """Make an authority and one certificate that serves both sides, in the files of a DOCKER_CERT_PATH."""
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=127.0.0.1 "
        "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=directory, check=True, capture_output=True)
    (directory / "ca.pem").write_bytes((directory / "cert.pem").read_bytes())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(directory / "ca.pem"))
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _end(connection: socket.socket) -> None:
    """Wake whoever waits for it in another thread, which close(2) would not."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has ended


def _set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def _join(
    client: socket.socket, engine: socket.socket, is_answered: Callable[[], bool], carrying: threading.Event
) -> None:
    """Carry bytes both ways until the engine ends. One thread: TLS does not bear a reader beside a writer.

    is_answered: called before anything of the engine's is carried; may say no. carrying: unless it is set, nothing is.
    """
    target = {client: engine, engine: client}
    while engine in target:
        # What TLS has taken from the socket already, select(2) does not see.
        buffered = [end for end in target if isinstance(end, ssl.SSLSocket) and end.pending()]
        for source in buffered or select.select(list(target), [], [])[0]:
            carrying.wait()
            chunk = source.recv(256 * 1024)
            if source is engine and not is_answered():
                return  # it has done it
            if chunk:
                target[source].sendall(chunk)
            else:
                target.pop(source).shutdown(socket.SHUT_WR)
