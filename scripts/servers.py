"""Make sure that the engine has the images of servers that examples use. Run by scripts/setup.

Where the official images of PostgreSQL and Redis can be pulled, these; else images that start as they do are put
together from the distribution's packages: the servers, the libraries they load, and busybox. Which it is goes to
.venv/postgres-image and .venv/redis-image.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import docker
from engine import (
    CHECKOUT,
    add_member,
    apt_update,
    busybox,
    busybox_root,
    connect,
    digest,
    give_up,
    has,
    import_image,
    is_current,
    is_debian,
    os_release,
    pull,
    run_quietly,
    say,
)

ENTRYPOINTS = CHECKOUT / "scripts" / "servers"
SERVER_USER = 999  # as in the official images; both have one of their own

# What packages ask for to be installed and administered, not to run; and what makes PostgreSQL's compiler of queries.
PACKAGES_LEFT_OUT = re.compile(
    r".*perl.*|libllvm.*|libz3.*|usrmerge|adduser|passwd|debconf|ucf|ssl-cert|locales|libc-l10n|dpkg|tar|debianutils|.*-helpers"
    r"|sysvinit-.*|sensible-.*|postgresql(-client)?-common|openssl|libpam-modules.*|libsemanage.*|libsepol.*|lsb-base|dash"
)
FILES_LEFT_OUT = re.compile(
    r"usr/share/(doc|man|locale|info|lintian|perl.*)/.*|usr/lib/[^/]+/gconv/.*|.*/bitcode/.*|.*/llvmjit.*"
    r"|etc/(init\.d|cron.*|logrotate\.d|apparmor\.d|redis|default)/.*|(usr/)?lib/systemd/.*|usr/bin/redis-(benchmark|check-aof)"
)


@dataclass(frozen=True)
class Server:
    """name: of the image and of its user. official: the image to pull. packages: an alternative for each release."""

    name: str
    official: str
    packages: tuple[str, ...]
    changes: tuple[str, ...]
    directories: tuple[str, ...]

    @property
    def image(self) -> str:
        return f"pytest-sandbox/{self.name}"

    @property
    def choice(self) -> Path:
        return CHECKOUT / ".venv" / f"{self.name}-image"

    @property
    def entrypoint(self) -> str:
        return (ENTRYPOINTS / f"{self.name}-entrypoint").read_text()


SERVERS = (
    Server(
        "postgres",
        "postgres:17-alpine",
        ("postgresql", "tzdata"),
        (
            "ENV PGDATA=/var/lib/postgresql/data",
            'ENTRYPOINT ["docker-entrypoint.sh"]',
            'CMD ["postgres"]',
        ),
        ("var/lib/postgresql", "var/lib/postgresql/data", "run/postgresql"),
    ),
    Server(
        "redis",
        "redis:7-alpine",
        ("redis-server",),
        ("WORKDIR /data", 'ENTRYPOINT ["docker-entrypoint.sh"]', 'CMD ["redis-server"]'),
        ("data",),
    ),
)


def main() -> int:
    client, reason = connect()
    if client is None:
        give_up(f"no container engine answers: {reason}")
    for server in SERVERS:
        image = chosen(client, server)
        server.choice.write_text(image + "\n")
        say(f"{server.name} is {image}")
    return 0


def chosen(client: docker.APIClient, server: Server) -> str:
    if has(client, server.official):
        return server.official
    recipe = digest(repr(server), server.entrypoint, PACKAGES_LEFT_OUT.pattern, FILES_LEFT_OUT.pattern)
    if is_current(client, server.image, recipe):
        return server.image
    say(f"pulling {server.official}")
    reason = pull(server.official)
    if reason is None:
        return server.official
    say(f"{server.official} can't be pulled: {reason}")
    if not is_debian():
        give_up(
            "and putting an image together takes the packages of Debian or Ubuntu.",
            f"Load it by hand: docker pull {server.official}, or docker load < a file saved elsewhere.",
        )
    say(f"putting {server.image} together from {os_release()['VERSION_CODENAME']}'s packages")
    build(client, server, recipe)
    return server.image


def build(client: docker.APIClient, server: Server, recipe: str) -> None:
    with tempfile.TemporaryDirectory(prefix="pytest-sandbox-") as scratch:
        Path(scratch).chmod(0o755)  # apt's own user `_apt` must be able to write below
        root = Path(scratch, "root")
        root.mkdir()
        for package in downloaded(Path(scratch), server.packages):
            subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
        target = Path(scratch, "root.tar")
        target.write_bytes(root_archive(root, server))
        import_image(client, target, server.image, recipe, server.changes)


def downloaded(scratch: Path, packages: tuple[str, ...]) -> list[Path]:
    """Download packages and all that they need, as if nothing were installed here; but for what is left out."""
    folder, status = scratch / "packages", scratch / "status"
    folder.mkdir()
    folder.chmod(0o777)
    status.touch()
    simulate = ["apt-get", "-s", "-o", f"Dir::State::status={status}", "-o", "APT::Install-Recommends=0", "install"]
    if not run_quietly(*simulate, *packages):
        apt_update()
    said = subprocess.run([*simulate, *packages], capture_output=True, text=True, check=True).stdout
    needed = [name for name in re.findall(r"^Inst (\S+)", said, re.MULTILINE) if not PACKAGES_LEFT_OUT.fullmatch(name)]
    download = ["apt-get", "download", "-q", *needed]
    if not run_quietly(*download, cwd=str(folder)):
        apt_update()
        subprocess.run(download, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return sorted(folder.glob("*.deb"))


def root_archive(root: Path, server: Server) -> bytes:
    """The root file system: busybox with its links, what the packages have, and the entrypoint."""
    passwd = f"root:x:0:0:root:/root:/bin/sh\n{server.name}:x:{SERVER_USER}:{SERVER_USER}::/:/bin/sh\n"
    group = f"root:x:0:\n{server.name}:x:{SERVER_USER}:\n"
    with busybox() as binary:
        applets = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout.split()
        archive = io.BytesIO(busybox_root(binary.read_bytes(), applets, passwd, group))
    with tarfile.open(fileobj=archive) as tar:
        made = set(tar.getnames())  # the engine takes no path twice
    archive.seek(0)
    with tarfile.open(fileobj=archive, mode="a", format=tarfile.PAX_FORMAT) as tar:
        add = partial(add_member, tar)
        for directory in server.directories:
            add(directory, 0o755, owner=SERVER_USER)
        for directory in sorted({"run", "usr/local", "usr/local/bin", "var/lib"} - made - {*server.directories}):
            add(directory, 0o755)
        add("usr/local/bin/docker-entrypoint.sh", 0o755, server.entrypoint.encode())
        for program in sorted(root.glob("usr/lib/postgresql/*/bin/*")):
            add(f"usr/local/bin/{program.name}", 0o777, target=f"/{program.relative_to(root)}")
        made = set(tar.getnames())
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            if name in made or FILES_LEFT_OUT.fullmatch(name) or FILES_LEFT_OUT.fullmatch(f"{name}/"):
                continue
            member = tar.gettarinfo(path, name)
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            if member.isreg():
                with path.open("rb") as file:
                    tar.addfile(member, file)
            else:
                tar.addfile(member)
    return archive.getvalue()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        give_up(f"exit code {error.returncode} of: {' '.join(map(str, error.cmd))}")
