"""Where an engine may be, from variables and from files laid out as the docker command lays them out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pytest_sandbox.engines.addresses import (
    Address,
    TlsFiles,
    at_url,
    docker_sockets,
    of_docker_command,
    of_podman_command,
    podman_sockets,
)
from pytest_sandbox.errors import EngineNotReachable


def write_context(config: Path, name: str, endpoint: dict[str, object], *tls: str) -> Path:
    """Store a context below a folder of the docker command; return the folder of its TLS files."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = config / "contexts" / "meta" / digest / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    folder = config / "contexts" / "tls" / digest / "docker"
    for file in tls:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def choose(config: Path, context: str) -> None:
    config.mkdir(exist_ok=True)
    (config / "config.json").write_text(json.dumps({"currentContext": context}))


def test_nothing_that_is_set_is_nothing_that_is_named(tmp_path: Path) -> None:
    assert of_docker_command({}, tmp_path) is None
    assert of_podman_command({}) is None


def test_the_host_comes_before_the_context_and_that_before_the_current_one(tmp_path: Path) -> None:
    config = tmp_path / ".docker"
    choose(config, "current")
    for name in ("current", "named"):
        write_context(config, name, {"Host": f"unix:///{name}.sock"})
    environment = {"DOCKER_HOST": "unix:///host.sock", "DOCKER_CONTEXT": "named"}

    assert of_docker_command(environment, tmp_path) == Address("unix:///host.sock", "DOCKER_HOST")
    del environment["DOCKER_HOST"]
    assert of_docker_command(environment, tmp_path) == Address("unix:///named.sock", "DOCKER_CONTEXT `named`")
    del environment["DOCKER_CONTEXT"]
    assert of_docker_command(environment, tmp_path) == Address("unix:///current.sock", "current context `current`")


def test_the_config_folder_may_be_elsewhere(tmp_path: Path) -> None:
    choose(tmp_path / "elsewhere", "mine")
    write_context(tmp_path / "elsewhere", "mine", {"Host": "ssh://me@there"})

    address = of_docker_command({"DOCKER_CONFIG": str(tmp_path / "elsewhere")}, Path("/nowhere"))

    assert address == Address("ssh://me@there", "current context `mine`")


@pytest.mark.parametrize("context", ["", "default"])
def test_the_default_context_names_nothing(tmp_path: Path, context: str) -> None:
    choose(tmp_path / ".docker", context)

    assert of_docker_command({"DOCKER_CONTEXT": context}, tmp_path) is None


def test_a_context_without_a_host_is_the_default_socket(tmp_path: Path) -> None:
    write_context(tmp_path / ".docker", "bare", {})

    address = of_docker_command({"DOCKER_CONTEXT": "bare"}, tmp_path)

    assert address is not None
    assert address.path == Path("/var/run/docker.sock")


def test_a_context_brings_its_tls_files(tmp_path: Path) -> None:
    tls = write_context(tmp_path / ".docker", "far", {"Host": "tcp://far:2376"}, "ca.pem", "cert.pem", "key.pem")

    address = of_docker_command({"DOCKER_CONTEXT": "far"}, tmp_path)

    assert address is not None
    assert address.tls == TlsFiles(tls / "ca.pem", tls / "cert.pem", tls / "key.pem", verify=True)


@pytest.mark.parametrize(
    ("skip", "files", "tls"),
    [
        (False, (), None),
        (True, (), TlsFiles(None, None, None, verify=False)),
        (False, ("cert.pem",), TlsFiles(None, None, None, verify=True)),  # of no use without its key
    ],
)
def test_a_context_has_tls_if_it_has_files_or_says_not_to_verify(
    tmp_path: Path, skip: bool, files: tuple[str, ...], tls: TlsFiles | None
) -> None:
    write_context(tmp_path / ".docker", "far", {"Host": "tcp://far:2376", "SkipTLSVerify": skip}, *files)

    address = of_docker_command({"DOCKER_CONTEXT": "far"}, tmp_path)

    assert address is not None
    assert address.tls == tls


@pytest.mark.parametrize(
    ("written", "reason"),
    [(None, "there is no such context"), ("{", "can't be read"), ("[]", "no JSON object")],
)
def test_a_context_that_cannot_be_read_is_not_reachable(tmp_path: Path, written: str | None, reason: str) -> None:
    write_context(tmp_path / ".docker", "mine", {})
    meta = next(tmp_path.glob("**/meta.json"))
    if written is None:
        meta.unlink()
    else:
        meta.write_text(written)

    with pytest.raises(EngineNotReachable, match=reason):
        of_docker_command({"DOCKER_CONTEXT": "mine"}, tmp_path)


def test_a_config_file_that_cannot_be_read_is_not_reachable(tmp_path: Path) -> None:
    choose(tmp_path / ".docker", "mine")
    (tmp_path / ".docker" / "config.json").write_text("currentContext = mine")

    with pytest.raises(EngineNotReachable, match=r"config\.json"):
        of_docker_command({}, tmp_path)


@pytest.mark.parametrize(
    ("variables", "verify"),
    [
        ({"DOCKER_TLS_VERIFY": "1"}, True),
        ({"DOCKER_TLS": "1"}, False),
        ({"DOCKER_CERT_PATH": "."}, False),
        ({"DOCKER_CERT_PATH": ".", "DOCKER_TLS_VERIFY": "1"}, True),
    ],
)
def test_variables_bring_tls_to_a_tcp_endpoint_alone(tmp_path: Path, variables: dict[str, str], verify: bool) -> None:
    folder = tmp_path if "DOCKER_CERT_PATH" in variables else tmp_path / ".docker"
    folder.mkdir(exist_ok=True)
    for file in ("ca.pem", "cert.pem", "key.pem"):
        (folder / file).touch()
    variables = {name: str(tmp_path) if value == "." else value for name, value in variables.items()}

    tcp = at_url("tcp://there:2376", "here", variables, tmp_path)

    assert tcp.tls == TlsFiles(folder / "ca.pem", folder / "cert.pem", folder / "key.pem", verify)
    assert at_url("unix:///there", "here", variables, tmp_path).tls is None


def test_tls_that_is_to_verify_without_an_authority_is_not_reachable(tmp_path: Path) -> None:
    with pytest.raises(EngineNotReachable, match=r"ca\.pem"):
        at_url("tcp://there:2376", "here", {"DOCKER_TLS_VERIFY": "1"}, tmp_path)


def test_sockets_are_looked_for_where_engines_listen() -> None:
    environment, home = {"XDG_RUNTIME_DIR": "/run/user/7"}, Path("/home/me")

    places = docker_sockets(environment, home) + podman_sockets(environment)

    assert [str(place.path) for place in places] == [
        "/var/run/docker.sock",
        "/run/user/7/docker.sock",
        "/home/me/.docker/run/docker.sock",
        "/home/me/.docker/desktop/docker.sock",
        "/home/me/.colima/default/docker.sock",
        "/run/podman/podman.sock",
        "/run/user/7/podman/podman.sock",
    ]


def test_podman_has_a_variable_of_its_own() -> None:
    assert of_podman_command({"CONTAINER_HOST": "ssh://me@there/run/podman/podman.sock"}) == Address(
        "ssh://me@there/run/podman/podman.sock", "CONTAINER_HOST"
    )
