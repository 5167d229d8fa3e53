"""A server of ssh on the loopback interface, as this user, with keys of its own; and a client's files for it."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

SSHD = "/usr/sbin/sshd"  # it has to be called by its whole path
SSH = "/usr/bin/ssh"
PRIVILEGE_SEPARATION = Path("/run/sshd")  # as root it insists on this folder, which its service would have made

SERVER_CONFIGURATION = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM no
"""
CLIENT_CONFIGURATION = """
IdentityFile {folder}/user
UserKnownHostsFile {folder}/known
GlobalKnownHostsFile none
"""


class SshServer:
    """url: for DOCKER_HOST, without a path. bin: a folder with an `ssh` that knows the server, for PATH.

    ssh takes no configuration by a variable, and a home directory not either.
    """

    def __init__(self, folder: Path) -> None:
        assert Path(SSHD).exists(), f'no {SSHD} here; -m "not ssh" leaves these tests out'
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
        (folder / "sshd_config").write_text(SERVER_CONFIGURATION.format(port=port, folder=folder))
        (folder / "config").write_text(CLIENT_CONFIGURATION.format(folder=folder))
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.bin / "ssh").write_text(f'#!/bin/sh\nexec {SSH} -F {folder}/config "$@"\n')
        (self.bin / "ssh").chmod(0o755)
        self._folder, self._port = folder, port
        self.url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}"
        self.trust()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        if os.geteuid() == 0:
            PRIVILEGE_SEPARATION.mkdir(exist_ok=True)
        self._server = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", self._folder / "sshd_config"], stderr=subprocess.PIPE, text=True
        )
        assert self._server.stderr is not None
        assert "listening" in self._server.stderr.readline()

    def stop(self) -> None:
        """End all connections, and listen no more."""
        self.cut()
        self._server.terminate()
        self._server.communicate()

    def trust(self, known: bool = True) -> None:
        """Let clients know the server's key, or not."""
        key = (self._folder / "host.pub").read_text()
        (self._folder / "known").write_text(f"[127.0.0.1]:{self._port} {key}" if known else "")

    def cut(self) -> None:
        """End all connections from the server's side, and leave them no time to say so."""
        pid = self._server.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
