"""What a test suite does without us: docker-py, by its documented calls."""

from __future__ import annotations

import io
import socket
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import BinaryIO

import docker
from docker.models.containers import Container


class Peer:
    """A container kept alive by `sleep`, and the calls that the usual fixtures are made of."""

    def __init__(self, image: str) -> None:
        self._client = docker.from_env()
        self._image = image
        self.container = self.new_container()

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.container.remove(force=True, v=True)
        self._client.close()

    def new_container(self) -> Container:
        return self._client.containers.run(
            self._image, ["sleep", "3600"], detach=True, network_mode="none", working_dir="/workspace"
        )

    def exec(self, *command: str) -> bytes:
        code, output = self.container.exec_run(list(command))
        assert code == 0, output
        assert isinstance(output, bytes)
        return output

    def write(self, name: str, content: bytes) -> None:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        self.container.put_archive("/workspace", archive.getvalue())

    def read(self, name: str) -> bytes:
        stream, _ = self.container.get_archive(f"/workspace/{name}", chunk_size=256 * 1024)
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
            content = tar.extractfile(name)
            assert content is not None
            return content.read()

    def put(self, directory: str, archive: BinaryIO) -> None:
        """Unpack an archive by the engine's own call."""
        assert self.container.put_archive(directory, archive.read())

    def untar(self, directory: str, archive: BinaryIO) -> None:
        """Unpack an archive with the image's own tar, run through the engine; returns when it has ended."""
        api = self._client.api
        command = api.exec_create(self.container.id, ["tar", "-x", "-C", directory], stdin=True)["Id"]
        stream = api.exec_start(command, socket=True)
        connection: socket.socket = stream._sock  # type: ignore[union-attr]  # docker-py has no other way to write to a command
        while chunk := archive.read(256 * 1024):
            connection.sendall(chunk)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
        stream.close()
        assert api.exec_inspect(command)["ExitCode"] == 0

    @contextmanager
    def terminal(self, *command: str) -> Iterator[socket.socket]:
        """Run a command on a terminal; what it shows comes on the socket, which takes keys."""
        api = self._client.api
        created = api.exec_create(self.container.id, list(command), stdin=True, tty=True)["Id"]
        stream = api.exec_start(created, tty=True, socket=True)
        try:
            yield stream._sock  # type: ignore[union-attr]  # as above
        finally:
            stream.close()

    def tar(self, path: str) -> int:
        """Take a directory out by the engine's own call: how many bytes came."""
        stream, _ = self.container.get_archive(path, chunk_size=256 * 1024)
        return sum(len(chunk) for chunk in stream)
