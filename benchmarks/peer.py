"""What a test suite does without us: docker-py, by its documented calls."""

from __future__ import annotations

import io
import tarfile
from types import TracebackType

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
