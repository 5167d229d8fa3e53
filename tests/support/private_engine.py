"""A Docker Engine of one's own, to freeze, kill and start again: nobody else's containers are on it.

It runs in namespaces of its own (processes, mounts, network), whose init waits for the end of its input. When that
comes, from close() or because the tests were killed, the kernel ends all that ever came of the engine and undoes its
mounts.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import docker

# Where the distributions put daemons is not on everybody's PATH.
PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
CGROUPS = Path("/sys/fs/cgroup")
BOUND = 30.0  # seconds from the daemon's start to its first answer, half of one when all is well; and for its end
POLL = 0.02

INIT = 'mount -t proc proc /proc; while read -r line; do eval "$line"; done'
CONTAINERD = 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'


class PrivateEngine:
    """One, from its making to close(). It has no bridge and no way to this machine's network.

    images: of the engine that everybody uses, to be there from the beginning.
    """

    def __init__(self, *images: str) -> None:
        missing = [name for name in ("containerd", "dockerd", "unshare") if shutil.which(name, path=PATH) is None]
        assert not missing, f'no {", ".join(missing)} here; -m "not private_engine" leaves these tests out'
        assert os.geteuid() == 0, 'this takes root; -m "not private_engine" leaves these tests out'
        self._folder = Path(tempfile.mkdtemp(prefix="sandbox-engine-"))  # short: a socket's path has 107 bytes at most
        self.endpoint = f"unix://{self._folder}/docker.sock"
        (self._folder / "containerd.toml").write_text(CONTAINERD)
        (self._folder / "dockerd.json").write_text("{}")  # not this machine's
        self._init = subprocess.Popen(
            ["unshare", "--pid", "--mount", "--net", "--fork", "--kill-child", "sh", "-c", INIT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PATH": PATH},
            start_new_session=True,  # Ctrl-C is not meant for it
        )
        try:
            self._run("containerd", config="containerd.toml", root="c", state="s", address="containerd.sock")
            self.start()
            self._load(images)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def client(self) -> docker.APIClient:
        """The engine as seen from outside; close it."""
        return docker.APIClient(self.endpoint, version="auto")

    @property
    def pid(self) -> int:
        """The daemon's, as this machine counts. Raises StopIteration while none runs."""
        (init,) = _children(self._init.pid)
        return next(pid for pid in _children(init) if _runs(pid, "dockerd"))

    def start(self) -> None:
        """Start the daemon, and wait until it answers. What a killed one had running it ends first."""
        (self._folder / "dockerd.pid").unlink(missing_ok=True)  # a killed one could not
        self._run(
            "dockerd",
            "--bridge=none",
            "--iptables=false",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            f"--cgroup-parent=/{self._folder.name}",
            f"--host={self.endpoint}",
            config_file="dockerd.json",
            containerd="containerd.sock",
            data_root="d",
            exec_root="x",
            pidfile="dockerd.pid",
        )
        deadline = time.monotonic() + BOUND
        while not self._answers():
            assert time.monotonic() < deadline, f"no answer; its last words:\n{self._last_words('dockerd')}"
            time.sleep(POLL)  # a daemon has no event for "ready" that a stranger could wait for

    def freeze(self) -> None:
        """Let it neither answer nor end. Its containers run on."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the daemon, and return when it has ended. With SIGKILL its containers run on, with SIGTERM they end."""
        with os.fdopen(os.pidfd_open(self.pid)) as pidfd:
            os.kill(self.pid, number)
            assert select.select([pidfd], [], [], BOUND)[0], "it does not end"

    def close(self) -> None:
        """End everything that runs, and remove everything that was made. Idempotent."""
        assert self._init.stdin is not None
        self._init.stdin.close()
        self._init.wait()
        for group in [*CGROUPS.glob(self._folder.name), *CGROUPS.glob(f"*/{self._folder.name}")]:
            for folder, _, _ in os.walk(group, topdown=False):
                Path(folder).rmdir()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *options: str, **paths: str) -> None:
        """Run a program in the namespaces. paths: options whose values are below the folder."""
        below = [f"--{name.replace('_', '-')}={self._folder / path}" for name, path in paths.items()]
        log = shlex.quote(str(self._folder / f"{program}.log"))
        assert self._init.stdin is not None
        self._init.stdin.write(f"{shlex.join([program, *options, *below])} >>{log} 2>&1 &\n".encode())
        self._init.stdin.flush()

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(BOUND)
            try:
                caller.connect(self.endpoint.removeprefix("unix://"))
                caller.sendall(b"GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")
                return caller.recv(4096).startswith(b"HTTP/1.1 200 ")
            except (FileNotFoundError, ConnectionError):
                return False  # not yet

    def _load(self, images: tuple[str, ...]) -> None:
        theirs, ours = docker.APIClient(version="auto"), self.client()
        try:
            for image in images:
                archive = b"".join(theirs.get_image(image))
                list(ours.load_image(archive))  # type: ignore[no-untyped-call]
        finally:
            theirs.close()
            ours.close()

    def _last_words(self, program: str) -> str:
        lines = (self._folder / f"{program}.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-5:])


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _runs(pid: int, name: str) -> bool:
    """Say whether a process has a name and has not ended; the shell that is its init need not have noticed."""
    try:
        comm, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except FileNotFoundError:
        return False
    return comm == name and rest.split()[0] != "Z"
