"""Make sure that a container engine answers and has the images that tests and examples use. Run by scripts/setup.

And that tests find the other programs that they need.

Two images: `pytest-sandbox/busybox`, 2 MB, for fast tests; and the default one, python:3.13-slim where it can be
pulled, else `pytest-sandbox/debian`, built from the distribution's packages. Which it is goes to .venv/sandbox-image.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

import docker
import docker.errors
import requests

CHECKOUT = Path(__file__).resolve().parent.parent
CHOICE = CHECKOUT / ".venv" / "sandbox-image"
DAEMON_LOG = Path(tempfile.gettempdir()) / "pytest-sandbox-dockerd.log"

# Of Podman, for tests alone: this machine's own configuration stays as it is.
PODMAN_CONFIGURATION = CHECKOUT / ".venv" / "containers.conf"
# For a machine on which crun can't make cgroups, and limits of resources can't be raised (no CAP_SYS_RESOURCE).
PODMAN_CONFIGURED = """\
[engine]
runtime = "runc"

[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
"""

SSHD = Path("/usr/sbin/sshd")
POLICY = Path("/usr/sbin/policy-rc.d")  # asked before a package starts its service

PROBE_SECONDS = 3
DAEMON_SECONDS = 60  # from its start to its first answer; 2 s when all is well
PULL_SECONDS = 240

# A process of its own, for docker-py puts no bound on a pull, and a process can be given up.
PULL_COMMAND = """
import docker, sys
try:
    for progress in docker.from_env().api.pull(sys.argv[1], stream=True, decode=True):
        if "error" in progress:
            sys.exit(progress["error"])
except docker.errors.APIError as error:
    sys.exit(error.explanation)
"""

DEFAULT_IMAGE = "python:3.13-slim"
EXAMPLES_IMAGE = "python:3.13"  # has git, gcc and make too: what examples/conftest.py puts in the slim one's place
DEBIAN_IMAGE = "pytest-sandbox/debian"
BUSYBOX_IMAGE = "pytest-sandbox/busybox"
LABEL = "pytest-sandbox.recipe"  # hash of how an image was made: made anew when that changes

DEBIAN_PACKAGES = "python3,python3-venv,python3-pip,git,gcc,libc6-dev,make,ca-certificates,less,nano,procps"
DEBIAN_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Users that tests run commands as: `tester` with a home and a supplementary group.
PASSWD = """\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
tester:x:1000:1000:tester:/home/tester:/bin/sh
"""
GROUP = """\
root:x:0:
nogroup:x:65534:
tester:x:1000:
extra:x:2000:tester
"""


def main() -> int:
    client = engine()
    ensure_busybox(client)
    image = default_image(client)
    if image == DEFAULT_IMAGE and not has(client, EXAMPLES_IMAGE):
        say(f"pulling {EXAMPLES_IMAGE}, for the examples")
        if reason := pull(EXAMPLES_IMAGE):
            say(f"{EXAMPLES_IMAGE} can't be pulled now: {reason}")
    ensure_ssh_server()
    if os.environ.get("PODMAN", "yes") != "no":
        ensure_podman(client)
    CHOICE.write_text(image + "\n")
    say(f"engine {client.version()['Version']}, default image {image}")
    return 0


# --- the engine -------------------------------------------------------------------------------------------------------


def engine() -> docker.APIClient:
    """Return a client of an engine that answers, starting and installing it where that is ours to do."""
    client, reason = connect()
    if client is not None:
        return client
    if os.environ.get("DOCKER_HOST") or not is_debian() or os.geteuid() != 0:
        give_up(
            f"no container engine answers: {reason}",
            "Start Docker (`sudo systemctl start docker`, or Docker Desktop), or point DOCKER_HOST at an engine.",
            "Not installed? On Debian and Ubuntu: sudo apt-get install docker.io; sudo adduser $USER docker",
        )
    if daemon() is None:
        say("no engine here: installing docker.io from the distribution")
        apt_install("docker.io", "iptables", "ca-certificates")
    start_daemon()
    client, reason = wait_for_engine()
    if client is None:
        give_up(
            f"dockerd was started, but does not answer: {reason}",
            f"Its last words, of {DAEMON_LOG}:\n" + last_lines(DAEMON_LOG),
            "In a container it needs --privileged.",
        )
    return client


def connect() -> tuple[docker.APIClient | None, str]:
    try:
        client = docker.from_env(timeout=PROBE_SECONDS).api
        client.ping()
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        return None, str(error)
    client.timeout = 120
    return client, ""


def daemon() -> str | None:
    # A `docker` on PATH may be a client alone.
    return shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:{PATH}")


def start_daemon() -> None:
    if Path("/run/systemd/system").exists():
        say("starting docker with systemctl")
        subprocess.run(["systemctl", "start", "docker"], check=False)
        return
    command = daemon()
    assert command is not None
    say(f"starting dockerd in the background, log in {DAEMON_LOG}")
    with DAEMON_LOG.open("ab") as log:
        # A session of its own: it outlives make, and Ctrl-C does not reach it.
        subprocess.Popen(
            [command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{PATH}"},
        )


def wait_for_engine() -> tuple[docker.APIClient | None, str]:
    deadline = time.monotonic() + DAEMON_SECONDS
    while True:
        client, reason = connect()
        if client is not None or time.monotonic() > deadline:
            return client, reason
        time.sleep(0.2)  # a daemon has no event for "ready" that a stranger could wait for


# --- Podman -----------------------------------------------------------------------------------------------------------


def ensure_podman(client: docker.APIClient) -> None:
    """Make sure that Podman runs containers here and has the small image, on which the contract tests run once more."""
    if not shutil.which("podman"):
        if not is_debian() or os.geteuid() != 0:
            say("there is no podman: `make test PODMAN=no` leaves out what runs on it")
            return
        say("installing podman from the distribution")
        with services_left_alone():
            apt_install("podman")
    wanted = client.inspect_image(BUSYBOX_IMAGE)["Id"]  # type: ignore[no-untyped-call]
    found = subprocess.run(
        ["podman", "image", "inspect", "--format=sha256:{{.Id}}", BUSYBOX_IMAGE], capture_output=True, text=True
    )
    if found.stdout.strip() != wanted:
        say(f"loading {BUSYBOX_IMAGE} into podman")
        with tempfile.TemporaryDirectory(prefix="pytest-sandbox-") as scratch:
            archive = Path(scratch, "image.tar")
            archive.write_bytes(b"".join(client.get_image(BUSYBOX_IMAGE)))
            subprocess.run(["podman", "load", "--quiet", "--input", archive], check=True, stdout=subprocess.DEVNULL)
    if podman_fails() is None:
        return
    PODMAN_CONFIGURATION.write_text(PODMAN_CONFIGURED)
    if (reason := podman_fails()) is not None:
        give_up(
            f"podman runs no container here: {reason}",
            f"Neither does it with {PODMAN_CONFIGURATION}.",
            "`make test PODMAN=no` leaves out what runs on it.",
        )
    say(f"podman runs here with {PODMAN_CONFIGURATION}")


def podman_fails() -> str | None:
    """Run a container; return why not, or None. With the configuration for tests if that is there."""
    environment = dict(os.environ)
    if PODMAN_CONFIGURATION.exists():
        environment.setdefault("CONTAINERS_CONF", str(PODMAN_CONFIGURATION))
    command = ["podman", "run", "--rm", "--network=none", BUSYBOX_IMAGE, "true"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[-1]


# --- the other end of ssh ---------------------------------------------------------------------------------------------


def ensure_ssh_server() -> None:
    """Install OpenSSH's server for the tests, which run it themselves: the machine's own is not to be started."""
    if SSHD.exists():
        return
    if not is_debian() or os.geteuid() != 0:
        say(f'there is no {SSHD}: `-m "not ssh"` leaves out the tests that need it')
        return
    say("installing openssh-server from the distribution, without starting it")
    with services_left_alone():
        apt_install("openssh-server")


@contextmanager
def services_left_alone() -> Iterator[None]:
    """Let packages that are installed meanwhile not start anything, in the way that Debian has for it."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


# --- images -----------------------------------------------------------------------------------------------------------


def default_image(client: docker.APIClient) -> str:
    if has(client, DEFAULT_IMAGE):
        return DEFAULT_IMAGE
    recipe = digest(DEBIAN_PACKAGES, *DEBIAN_LEFT_OUT, PATH)
    if is_current(client, DEBIAN_IMAGE, recipe):
        return DEBIAN_IMAGE
    say(f"pulling {DEFAULT_IMAGE}")
    reason = pull(DEFAULT_IMAGE)
    if reason is None:
        return DEFAULT_IMAGE
    say(f"{DEFAULT_IMAGE} can't be pulled: {reason}")
    build_debian(client, recipe)
    return DEBIAN_IMAGE


def pull(image: str) -> str | None:
    """Pull, within bounds; return why not, or None."""
    command = [sys.executable, "-c", PULL_COMMAND, image]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PULL_SECONDS)
    except subprocess.TimeoutExpired:
        return f"not there after {PULL_SECONDS} s"
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[-1]


def build_debian(client: docker.APIClient, recipe: str) -> None:
    if not is_debian() or (os.geteuid() != 0 and not shutil.which("mmdebstrap")):
        give_up(
            f"{DEFAULT_IMAGE} can't be pulled, and building one takes root on Debian or Ubuntu, or mmdebstrap.",
            f"Load it by hand: docker pull {DEFAULT_IMAGE}, or docker load < a file saved elsewhere.",
            "Or name another image with python3, git and gcc in SANDBOX_IMAGE.",
        )
    if not shutil.which("mmdebstrap"):
        say("installing mmdebstrap")
        apt_install("mmdebstrap")
    suite = os_release()["VERSION_CODENAME"]
    say(f"building {DEBIAN_IMAGE} from {suite}'s packages with mmdebstrap, about a minute")
    with tempfile.TemporaryDirectory(prefix="pytest-sandbox-") as scratch:
        options = Path(scratch, "apt.conf")
        options.write_text(apt_options())
        target = Path(scratch, "root.tar")
        command = [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={DEBIAN_PACKAGES}",
            f"--aptopt={options}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in DEBIAN_LEFT_OUT),
            suite,
            str(target),
            "-",
        ]
        if subprocess.run(command, input=apt_sources(suite), text=True).returncode != 0:
            give_up(
                f"mmdebstrap could not build {DEBIAN_IMAGE}; its reason is above.",
                f"It takes {suite}'s packages from where apt does: does `apt-get update` work here?",
                "Or name another image with python3, git and gcc in SANDBOX_IMAGE.",
            )
        import_image(client, target, DEBIAN_IMAGE, recipe)


def apt_sources(suite: str) -> str:
    """This machine's own sources of the suite, as one-line entries: a mirror or proxy may be all it reaches."""
    lines = []
    for path in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.list"))]:
        if path.exists():
            lines += [line for line in path.read_text().splitlines() if re.match(r"deb\s", line)]
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            field = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", stanza, re.MULTILINE))
            if field.get("Enabled", "yes") == "no" or "deb" not in field.get("Types", "").split():
                continue
            signed = field.get("Signed-By", "")
            option = f"[signed-by={signed}] " if signed.startswith("/") else ""
            for uri in field.get("URIs", "").split():
                lines += [f"deb {option}{uri} {each} {field.get('Components', '')}" for each in field["Suites"].split()]
    chosen = [line for line in lines if re.search(rf"\s{suite}\S*\s.*\bmain\b", line)]
    return "\n".join(chosen) + "\n"


def apt_options() -> str:
    """How this machine's apt reaches its mirrors: proxies, certificates, snapshots whose validity has passed."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    kept = re.compile(r"Acquire::(https?::|Check-|Retries|ForceIPv|AllowInsecure)", re.IGNORECASE)
    return "\n".join(line for line in dump.splitlines() if kept.match(line) and not line.endswith('"";')) + "\n"


def ensure_busybox(client: docker.APIClient) -> None:
    recipe = digest(PASSWD, GROUP, PATH, "1")
    if is_current(client, BUSYBOX_IMAGE, recipe):
        return
    say(f"building {BUSYBOX_IMAGE}")
    with busybox() as binary:
        applets = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout.split()
        root = busybox_root(binary.read_bytes(), applets)
    with tempfile.TemporaryDirectory(prefix="pytest-sandbox-") as scratch:
        target = Path(scratch, "root.tar")
        target.write_bytes(root)
        import_image(client, target, BUSYBOX_IMAGE, recipe)


@contextmanager
def busybox() -> Iterator[Path]:
    """A static busybox: the installed one, or out of its package, which need not be installed for that."""
    installed = Path("/bin/busybox")
    if installed.exists() and is_static(installed):
        yield installed
        return
    if not shutil.which("apt-get"):
        give_up(
            "a static busybox is needed for the small test image, and this is no Debian or Ubuntu.",
            "Install busybox (the static one) as /bin/busybox, with your system's packages.",
            "Only the tests need it, not the package.",
        )
    with tempfile.TemporaryDirectory(prefix="pytest-sandbox-") as scratch:
        # apt's own user `_apt` must be able to write here
        Path(scratch).chmod(0o777)
        if not run_quietly("apt-get", "download", "-q", "busybox-static", cwd=scratch):
            apt_update()
            subprocess.run(["apt-get", "download", "-q", "busybox-static"], cwd=scratch, check=True)
        package = next(Path(scratch).glob("busybox-static*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(package), scratch], check=True)
        yield next(path for path in Path(scratch).glob("**/bin/busybox") if is_static(path))


def is_static(program: Path) -> bool:
    """Say whether an ELF file asks for no dynamic loader: PT_INTERP names one as a plain path."""
    return b"/ld-linux" not in program.read_bytes()[:4096] and b"/ld-musl" not in program.read_bytes()[:4096]


def busybox_root(binary: bytes, applets: list[str], passwd: str = PASSWD, group: str = GROUP) -> bytes:
    """A root file system as a tar archive: busybox with a link per applet, users, and a few directories."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add = partial(add_member, tar)
        for directory in ("bin", "dev", "etc", "home", "proc", "sys", "usr", "usr/bin", "var"):
            add(directory, 0o755)
        add("root", 0o700)
        add("home/tester", 0o755, owner=1000)
        for directory in ("tmp", "var/tmp"):
            add(directory, 0o1777)
        add("etc/passwd", 0o644, passwd.encode())
        add("etc/group", 0o644, group.encode())
        add("bin/busybox", 0o755, binary)
        for applet in applets:
            if applet != "busybox":
                add(f"bin/{applet}", 0o777, target="busybox")
        add("usr/bin/env", 0o777, target="/bin/busybox")
    return archive.getvalue()


def add_member(
    tar: tarfile.TarFile, name: str, mode: int, content: bytes | None = None, owner: int = 0, target: str = ""
) -> None:
    """Add a file, a link to `target`, or, without content, a directory."""
    member = tarfile.TarInfo(name)
    member.mode, member.uid, member.gid = mode, owner, owner
    member.type = tarfile.SYMTYPE if target else tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    member.linkname, member.size = target, len(content or b"")
    tar.addfile(member, io.BytesIO(content or b""))


def import_image(
    client: docker.APIClient, archive: Path, image: str, recipe: str, configured: Sequence[str] = ()
) -> None:
    """Make an image of a root file system. configured: further lines, as a Dockerfile has them."""
    changes = [f"ENV PATH={PATH}", f"LABEL {LABEL}={recipe}", *configured]
    replaced = client.inspect_image(image)["Id"] if has(client, image) else None  # type: ignore[no-untyped-call]
    answer = client.import_image_from_file(str(archive), repository=image, tag="latest", changes=changes)
    if '"error"' in str(answer):
        raise SystemExit(f"setup: the engine did not take {image}: {answer}")
    if replaced is not None:
        with suppress(docker.errors.APIError):  # a container still uses it
            client.remove_image(replaced)


def has(client: docker.APIClient, image: str) -> bool:
    try:
        client.inspect_image(image)  # type: ignore[no-untyped-call]
    except docker.errors.ImageNotFound:
        return False
    return True


def is_current(client: docker.APIClient, image: str, recipe: str) -> bool:
    try:
        labels = client.inspect_image(image)["Config"]["Labels"] or {}  # type: ignore[no-untyped-call]
    except docker.errors.ImageNotFound:
        return False
    return bool(labels.get(LABEL) == recipe)


# --- small -----------------------------------------------------------------------------------------------------------


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def os_release() -> dict[str, str]:
    path = Path("/etc/os-release")
    text = path.read_text() if path.exists() else ""
    return {name: value.strip('"') for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)}


def is_debian() -> bool:
    release = os_release()
    return "debian" in [release.get("ID"), *release.get("ID_LIKE", "").split()]


def apt_update() -> None:
    subprocess.run(["apt-get", "update", "-qq"], check=True)


def apt_install(*packages: str) -> None:
    apt_update()
    subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )


def run_quietly(*command: str, cwd: str | None = None) -> bool:
    return subprocess.run(command, capture_output=True, cwd=cwd).returncode == 0


def last_lines(path: Path, count: int = 8) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-count:]) if path.exists() else "(none)"


def give_up(*lines: str) -> NoReturn:
    print("\n".join(f"setup: {line}" for line in lines), file=sys.stderr)
    raise SystemExit(1)


def say(what: str) -> None:
    print(f"setup: {what}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        give_up(f"exit code {error.returncode} of: {' '.join(map(str, error.cmd))}")
