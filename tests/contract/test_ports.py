"""Ports of programs in a sandbox, and waiting until they answer."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pytest_sandbox.errors import (
    CommandNotFound,
    InvalidPort,
    InvalidSetting,
    NotAnswering,
    OutputEnded,
    PortTaken,
    SandboxClosed,
    SandboxLost,
)
from pytest_sandbox.faces import Process, Sandbox

# For the agent as a plain subprocess: what busybox's `nc -ll -p PORT -e PROGRAM` does in the container.
SERVER = """
import socket, subprocess, sys
address, port, *program = sys.argv[1:]
server = socket.create_server((address, int(port)), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
while True:
    connection, _ = server.accept()
    with connection:
        subprocess.Popen(program, stdin=connection, stdout=connection)
"""


@pytest.fixture
def port() -> int:
    """One that nothing listens on: of this machine, which is where the agent without a container has its own."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def listening(port: int) -> Callable[..., list[str]]:
    """The command that starts a program for each connection to the port."""

    def listening(sandbox: Sandbox, *program: str, address: str = "127.0.0.1") -> list[str]:
        if sandbox.container.image == "none":
            return [sys.executable, "-c", SERVER, address, str(port), *program]
        return ["nc", "-ll", "-p", str(port), "-e", *program]  # on every address

    return listening


@pytest.fixture
def serve(sandbox: Sandbox, listening: Callable[..., list[str]]) -> Callable[..., Process]:
    """Start a program for each connection to the port."""
    return lambda *program, **where: sandbox.start(listening(sandbox, *program, **where))


def received(endpoint_address: tuple[str, int], sent: bytes) -> bytes:
    with socket.create_connection(endpoint_address, timeout=10) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def ended(connection: socket.socket) -> bool:
    """Whether the other side gives the connection up without an answer."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


# Answers each datagram with the sender's number, by order of appearance, and what it said; to "size N", with N bytes.
# `reflect` says which address it is to have.
UDP_SERVER = """
import socket, sys
address, port = sys.argv[1:]
server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
server.bind((address, int(port)))
print("bound", flush=True)
senders = []
while True:
    datagram, sender = server.recvfrom(65536)
    if sender not in senders:
        senders.append(sender)
    if datagram.startswith(b"size "):
        server.sendto(bytes(int(datagram[5:])), sender)
    else:
        server.sendto(b"%d:" % senders.index(sender) + datagram, sender)
"""


@pytest.fixture
def udp_port() -> int:
    """One that nobody has, of this machine."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def serve_udp(sandbox: Sandbox, udp_port: int) -> Callable[..., Process]:
    def serve(address: str = "127.0.0.1") -> Process:
        process = sandbox.start([sys.executable, "-c", UDP_SERVER, address, str(udp_port)])
        process.stdout.wait_for("bound", timeout=30)
        return process

    return serve


def client() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(20)
    return made


def asked(client: socket.socket, address: tuple[str, int], datagram: bytes) -> bytes:
    client.sendto(datagram, address)
    return client.recv(65536)


engineless = pytest.mark.parametrize("engine", ["subprocess"], indirect=True)


@pytest.mark.parametrize("number", [0, -1, 65536, True, "80"])
def test_a_port_that_is_none_is_refused(sandbox: Sandbox, number: int) -> None:
    with pytest.raises(InvalidPort, match="from 1 to 65535"):
        sandbox.endpoint(number)
    with pytest.raises(InvalidPort):
        sandbox.wait_for_port(number, timeout=5)


def test_a_taken_port_of_the_host_is_refused(sandbox: Sandbox, port: int) -> None:
    with closing(socket.socket()) as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]

        with pytest.raises(PortTaken, match=f"port {taken} .*in use"):
            sandbox.endpoint(port, host_port=taken)


def test_a_port_has_one_endpoint(sandbox: Sandbox, port: int) -> None:
    endpoint = sandbox.endpoint(port)

    assert sandbox.endpoint(port) == endpoint == sandbox.endpoint(port, host_port=endpoint.port)
    assert endpoint.url == f"http://127.0.0.1:{endpoint.port}"
    with pytest.raises(PortTaken, match=f"is at {endpoint} already"):
        sandbox.endpoint(port, host_port=endpoint.port - 1)


def test_a_connection_to_a_port_that_nobody_serves_is_broken_off(sandbox: Sandbox, port: int) -> None:
    with socket.create_connection(sandbox.endpoint(port).address, timeout=10) as connection:
        assert ended(connection)


def test_waiting_for_a_port_says_what_listens_instead(sandbox: Sandbox, port: int) -> None:
    with pytest.raises(NotAnswering, match="connection refused") as caught:
        sandbox.wait_for_port(port, timeout=0.3)

    assert port not in (caught.value.listening or ())
    assert f"port {port} of {sandbox.name} did not answer within 0.3 s" in str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0"])
def test_a_program_is_reached_wherever_it_listens(
    sandbox: Sandbox, serve: Callable[..., Process], port: int, address: str
) -> None:
    if address == "::1" and not sandbox.exec("cat /proc/net/if_inet6").stdout:
        pytest.skip("no IPv6 in this sandbox")
    serve("cat", address=address)

    endpoint = sandbox.wait_for_port(port, timeout=10)

    assert received(endpoint.address, b"hello") == b"hello"


def test_many_bytes_go_both_ways_at_once(sandbox: Sandbox, serve: Callable[..., Process], port: int) -> None:
    serve("cat")
    content = os.urandom(65537) * 60  # 4 MB: more than all buffers on the way hold
    endpoint = sandbox.wait_for_port(port, timeout=10)

    def send(connection: socket.socket) -> None:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)

    with socket.create_connection(endpoint.address, timeout=60) as connection:
        sending = threading.Thread(target=send, args=[connection])
        sending.start()
        echoed = b"".join(iter(lambda: connection.recv(65536), b""))
        sending.join()

    assert echoed == content


def test_connections_at_once_are_kept_apart(sandbox: Sandbox, serve: Callable[..., Process], port: int) -> None:
    serve("cat")
    address = sandbox.wait_for_port(port, timeout=10).address
    connections = [socket.create_connection(address, timeout=10) for _ in range(8)]

    for number, connection in enumerate(connections):
        connection.sendall(b"%d" % number)
    answers = [connection.recv(1) for connection in connections]
    for connection in connections:
        connection.close()

    assert answers == [b"%d" % number for number in range(8)]


def test_closing_the_sandbox_ends_endpoint_and_connections(
    fresh: Sandbox, listening: Callable[..., list[str]], port: int
) -> None:
    fresh.start(listening(fresh, "cat"))
    address = fresh.wait_for_port(port, timeout=10).address

    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        fresh.close()

        assert ended(connection)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=10)


@pytest.fixture
def answering(sandbox: Sandbox, serve: Callable[..., Process]) -> Callable[[str], None]:
    """Serve HTTP with a status."""

    def answering(status: str) -> None:
        script = f"{sandbox.workspace}/answer"
        sandbox.write_text(script, f'#!/bin/sh\nread -r line\nprintf "HTTP/1.0 {status}\\r\\n\\r\\n"\n')
        sandbox.chmod(script, 0o755)
        serve(script)

    return answering


def test_waiting_for_http_says_what_was_answered(sandbox: Sandbox, answering: Callable[[str], None], port: int) -> None:
    answering("503 Warming up")
    sandbox.wait_for_port(port, timeout=10)

    with pytest.raises(NotAnswering, match=r"answered 'HTTP/1.0 503 Warming up'"):
        sandbox.wait_for_http(port, "/health", timeout=0.5)

    assert sandbox.wait_for_http(port, status=(200, 503), timeout=10) == sandbox.endpoint(port)


def test_waiting_for_http_from_what_speaks_something_else(
    sandbox: Sandbox, serve: Callable[..., Process], port: int
) -> None:
    serve("true")
    sandbox.wait_for_port(port, timeout=10)

    with pytest.raises(NotAnswering, match=r"closed the connection without an answer|reset"):
        sandbox.wait_for_http(port, timeout=0.5)


def test_waiting_for_a_command_shows_its_last_failure(sandbox: Sandbox) -> None:
    with pytest.raises(NotAnswering, match="exit code 3, not yet") as caught:
        sandbox.wait_for_command("echo not yet >&2; exit 3", timeout=0.3)

    assert caught.value.awaited == "`echo not yet >&2; exit 3`"


def test_waiting_for_a_command_that_hangs_kills_it(sandbox: Sandbox) -> None:
    with pytest.raises(NotAnswering, match=r"was killed|no answer yet"):
        sandbox.wait_for_command("echo here; sleep 61.5", timeout=0.3)

    assert sandbox.exec("ps | grep -c '[s]leep 61.5'").stdout.text == "0\n"


def test_waiting_for_a_command_that_is_not_there_ends_at_once(sandbox: Sandbox) -> None:
    with pytest.raises(CommandNotFound):
        sandbox.wait_for_command(["no-such-program"], timeout=60)


def test_waiting_for_a_command_tries_until_it_succeeds(sandbox: Sandbox) -> None:
    sandbox.wait_for_command("echo x >> tries; test $(wc -l < tries) -ge 3", timeout=10)

    assert sandbox.read_text("tries") == "x\nx\nx\n"


def test_waiting_for_a_line(sandbox: Sandbox) -> None:
    with sandbox.start("echo starting; echo now ready; echo more; cat") as process:
        assert process.stdout.wait_for("ready", timeout=10) == b"now ready\n"
        assert process.stdout.wait_for(re.compile(rb"m.re"), timeout=10) == b"more\n"


def test_waiting_for_a_line_shows_the_last_ones(sandbox: Sandbox) -> None:
    with sandbox.start("echo starting; printf begun; cat") as process:
        process.stdout.wait_for("starting")
        with pytest.raises(NotAnswering, match=r"'ready'.*within 0.5 s(?s:.)*  begun"):
            process.stdout.wait_for("ready", timeout=0.5)

        assert process.stdout.read_some().decode() == "begun", "what was seen is lost"


def test_waiting_for_a_line_of_output_that_has_ended(sandbox: Sandbox) -> None:
    with (
        sandbox.start("echo no such option") as process,
        pytest.raises(OutputEnded, match=r"without a line with 'ready'(?s:.)*  no such option"),
    ):
        process.stdout.wait_for("ready")


# --- UDP --------------------------------------------------------------------------------------------------------------


@engineless
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0"])
def test_datagrams_reach_a_program_wherever_it_is(
    sandbox: Sandbox, serve_udp: Callable[..., Process], udp_port: int, address: str
) -> None:
    if address == "::1" and not sandbox.exec("cat /proc/net/if_inet6").stdout:
        pytest.skip("no IPv6 in this sandbox")
    serve_udp(address)
    endpoint = sandbox.endpoint(udp_port, protocol="udp")

    with client() as sender:
        assert asked(sender, endpoint.address, b"hello") == b"0:hello"
        assert asked(sender, endpoint.address, b"") == b"0:", "one without content is one"
    assert sandbox.endpoint(udp_port, protocol="udp") == endpoint
    assert endpoint.url == f"udp://127.0.0.1:{endpoint.port}"


@engineless
def test_datagrams_keep_their_bounds_and_their_senders(
    sandbox: Sandbox, serve_udp: Callable[..., Process], udp_port: int
) -> None:
    serve_udp()
    address = sandbox.endpoint(udp_port, protocol="udp").address

    with client() as one, client() as other:
        assert asked(one, address, b"a") == b"0:a"
        assert asked(other, address, b"b") == b"1:b"
        for number in range(32):
            one.sendto(b"%d" % number, address)
        assert {one.recv(65536) for _ in range(32)} == {b"0:%d" % number for number in range(32)}
        assert asked(one, address, b"x" * 65505) == b"0:" + b"x" * 65505, "the largest that IPv4 has"
        assert asked(other, address, b"size 65507") == bytes(65507)
        assert asked(one, address, b"c") == b"0:c", "a flow goes on"


@engineless
def test_what_nobody_has_the_port_for_is_lost_and_what_follows_is_not(
    sandbox: Sandbox, serve_udp: Callable[..., Process], udp_port: int
) -> None:
    address = sandbox.endpoint(udp_port, protocol="udp").address
    with client() as sender:
        sender.sendto(b"lost", address)
        server = serve_udp()
        sender.settimeout(0.2)
        answer = repeated(sender, address)
        server.kill()
        sender.sendto(b"lost too", address)
        serve_udp()

        assert answer.startswith(b"0:again")
        assert repeated(sender, address).startswith(b"0:again")


def repeated(sender: socket.socket, address: tuple[str, int]) -> bytes:
    """Ask until there is an answer, as whoever uses UDP does."""
    for _ in range(100):
        try:
            return asked(sender, address, b"again")
        except TimeoutError:
            continue
    raise AssertionError("no answer")


@engineless
def test_the_flow_that_is_silent_for_longest_ends_when_there_are_too_many(
    sandbox: Sandbox, serve_udp: Callable[..., Process], udp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_sandbox.core.datagrams.MOST_FLOWS", 2)
    serve_udp()
    address = sandbox.endpoint(udp_port, protocol="udp").address
    with client() as first, client() as second, client() as third:
        assert asked(first, address, b"") == b"0:"
        assert asked(second, address, b"") == b"1:"
        assert asked(first, address, b"") == b"0:"
        assert asked(third, address, b"") == b"2:"  # for which the second, silent for longest, has to go
        assert asked(first, address, b"") == b"0:"
        assert asked(second, address, b"") == b"3:", "a sender whose flow has ended begins another"


@engineless
def test_a_flow_ends_when_it_is_idle(
    sandbox: Sandbox, serve_udp: Callable[..., Process], udp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_sandbox.core.datagrams.IDLE", 0.5)
    serve_udp()
    address = sandbox.endpoint(udp_port, protocol="udp").address
    with client() as sender:
        assert asked(sender, address, b"") == b"0:"
        sandbox.wait_for_command(f"! ps ax -o args | grep -q '[c]onnect-udp {udp_port}'", timeout=20)

        assert asked(sender, address, b"") == b"1:", "a sender whose flow has ended begins another"


@engineless
def test_a_udp_port_and_a_tcp_port_of_one_number_are_two(sandbox: Sandbox, port: int) -> None:
    endpoints = [sandbox.endpoint(port, protocol="udp"), sandbox.endpoint(port)]

    assert [endpoint.protocol for endpoint in endpoints] == ["udp", "tcp"]
    assert [sandbox.endpoint(port, protocol="udp"), sandbox.endpoint(port)] == endpoints


@engineless
def test_a_protocol_that_is_none_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(InvalidSetting, match="'sctp' is not valid; expected `tcp` or `udp`"):
        sandbox.endpoint(80, protocol="sctp")  # type: ignore[arg-type]


@engineless
def test_a_taken_udp_port_of_the_host_is_refused(sandbox: Sandbox, udp_port: int) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as holder:
        holder.bind(("127.0.0.1", 0))

        with pytest.raises(PortTaken, match="in use"):
            sandbox.endpoint(udp_port, protocol="udp", host_port=holder.getsockname()[1])


@engineless
def test_closing_the_sandbox_ends_udp_endpoints(fresh: Sandbox, udp_port: int) -> None:
    address = fresh.endpoint(udp_port, protocol="udp").address
    with client() as sender:
        sender.sendto(b"x", address)

        fresh.close()

    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as again:
        again.bind(address)


@engineless
@pytest.mark.parametrize(("argument", "status"), [("0", 64), ("65536", 64), ("x", 64), ("", 64)])
def test_the_relay_refuses_what_is_no_port(sandbox: Sandbox, argument: str, status: int) -> None:
    assert sandbox.exec(["/proc/self/exe", "connect-udp", argument]).exit_code == status
    assert sandbox.exec(["/proc/self/exe", "connect", argument]).exit_code == status


@pytest.mark.docker
@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_datagrams_reach_a_program_in_a_container(sandbox: Sandbox, tmp_path: Path) -> None:
    # Small images have no program that serves UDP.
    source = Path(__file__).parents[1] / "support" / "udp_server.c"
    subprocess.run(["cc", "-static", "-o", tmp_path / "server", source], check=True)
    sandbox.upload(tmp_path / "server", "server")
    server = sandbox.start(["./server", "7000"])
    server.stdout.wait_for("bound", timeout=30)

    with client() as sender:
        assert asked(sender, sandbox.endpoint(7000, protocol="udp").address, b"hello") == b"HELLO"


# --- a sandbox that is gone -------------------------------------------------------------------------------------------


def waits(sandbox: Sandbox, port: int) -> dict[str, Callable[[], object]]:
    return {
        "endpoint": lambda: sandbox.endpoint(port),
        "udp": lambda: sandbox.endpoint(port, protocol="udp"),
        "port": lambda: sandbox.wait_for_port(port, timeout=60),
        "http": lambda: sandbox.wait_for_http(port, timeout=60),
        "command": lambda: sandbox.wait_for_command("false", timeout=60),
    }


def test_a_vanished_sandbox_is_lost_to_all_that_asks_for_its_ports(
    fresh: Sandbox, vanish: Callable[[Sandbox], None], port: int
) -> None:
    known = fresh.endpoint(port)
    vanish(fresh)

    for ask in waits(fresh, port).values():
        with pytest.raises(SandboxLost):
            ask()
    with socket.create_connection(known.address, timeout=10) as connection:
        assert ended(connection)


def test_a_closed_sandbox_is_closed_to_all_that_asks_for_its_ports(fresh: Sandbox, port: int) -> None:
    fresh.close()

    for ask in waits(fresh, port).values():
        with pytest.raises(SandboxClosed):
            ask()


@engineless
def test_closing_a_sandbox_ends_a_wait_for_its_port(fresh: Sandbox, port: int) -> None:
    closing_it = threading.Timer(0.1, fresh.close)
    closing_it.start()

    with pytest.raises(SandboxClosed):
        fresh.wait_for_port(port, timeout=60)

    closing_it.join()
