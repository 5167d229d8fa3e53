"""Images made from local files, by a real engine: made once, known by what goes into them, and gone when unused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import docker
import docker.errors
import pytest
import pytest_asyncio

from pytest_sandbox import Image, ImageNotMade, PullPolicy, SandboxSettings
from pytest_sandbox.core.sandbox import SandboxCore
from pytest_sandbox.engines.docker import DockerEngine
from pytest_sandbox.engines.local_images import REPOSITORY

pytestmark = pytest.mark.docker

IMAGE = os.environ.get("SANDBOX_TEST_IMAGE", "pytest-sandbox/busybox")
CHECKOUT = Path(__file__).parent.parent.parent
A_DAY = 86400.0

# A process that makes an image. Arguments: its folder.
MAKER = """
import asyncio, sys
from pathlib import Path
from pytest_sandbox.engines.docker import DockerEngine
from pytest_sandbox import Image, PullPolicy, SandboxSettings

async def main():
    engine = await DockerEngine.from_environment()
    settings = SandboxSettings(image=Image(Path(sys.argv[1])), pull=PullPolicy.NEVER)
    print("ready", flush=True)
    sys.stdin.read()
    print(await engine.ensure_image(settings), flush=True)
    await engine.close()

asyncio.run(main())
"""


@pytest.fixture(scope="module")  # to find out what it speaks takes Podman half a second
def api() -> Iterator[docker.APIClient]:
    client = docker.from_env().api
    yield client
    client.close()


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(autouse=True)
def no_images_left(api: docker.APIClient, tmp_path: Path) -> Iterator[None]:
    """Remove the images that a test has made; those of others stay: with an image Podman removes its containers."""
    yield
    for name in noted(tmp_path):
        if exists(api, name):
            api.remove_image(name, force=True)


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[DockerEngine]:
    engine = await DockerEngine.from_environment()
    yield engine
    await engine.close()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A folder to build from; no other test's image is equal to its."""
    folder = tmp_path / "image"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY . /built\nRUN echo ran > /ran\n")
    (folder / "unique").write_text(uuid.uuid4().hex)
    return folder


def noted(tmp_path: Path) -> list[str]:
    """The images that this test has used, or was about to: each leaves a file of when that was."""
    stamps = (tmp_path / "cache").rglob(f"{REPOSITORY}-*.used")
    return [f"{REPOSITORY}:{stamp.stem.removeprefix(f'{REPOSITORY}-')}" for stamp in stamps]


def exists(api: docker.APIClient, name: str) -> bool:
    try:
        inspected(api, name)
    except docker.errors.ImageNotFound:
        return False
    return True


def inspected(api: docker.APIClient, image: str) -> dict[str, Any]:
    return cast("dict[str, Any]", api.inspect_image(image))  # type: ignore[no-untyped-call]


def settings_of(image: Image, pull: PullPolicy = PullPolicy.NEVER) -> SandboxSettings:
    return SandboxSettings(image=image, pull=pull)


async def ensured(image: Image, pull: PullPolicy = PullPolicy.NEVER) -> tuple[str, list[str]]:
    """What another process would get, and what it would be told meanwhile."""
    told: list[str] = []
    engine = await DockerEngine.from_environment()
    engine.progress = told.append
    try:
        return await engine.ensure_image(settings_of(image, pull)), told
    finally:
        await engine.close()


# --- what fails -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "buildkit", [pytest.param("1", id="BuildKit", marks=pytest.mark.needs("BuildKit")), pytest.param("0", id="classic")]
)
@pytest.mark.asyncio
async def test_a_build_that_fails_shows_the_last_20_lines_of_its_log(
    context: Path, api: docker.APIClient, buildkit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_BUILDKIT", buildkit)
    script = "for n in $(seq 1 40); do echo line $n; done; exit 3"
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN {script}\n")
    containers = len(api.containers(all=True, filters={"status": "exited"}))

    with pytest.raises(ImageNotMade, match=r"(code:|status) 3") as caught:
        await ensured(Image(context))

    lines = str(caught.value).splitlines()
    assert lines[-1].strip() == "line 40"
    assert lines[1].startswith("log (last 20 of ")
    assert len(lines) == 22
    assert len(api.containers(all=True, filters={"status": "exited"})) == containers


@pytest.mark.asyncio
async def test_a_dockerfile_that_is_none_is_the_engines_own_complaint(context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nFETCH me\n")

    with pytest.raises(ImageNotMade, match=r"(?i)unknown instruction: \"?FETCH"):
        await ensured(Image(context))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image(Path("/nowhere/at/all")), "No such file"),
        (Image(Path("/proc")), "there is no file Dockerfile"),
        (Image(Path(__file__)), "import"),
    ],
)
@pytest.mark.asyncio
async def test_what_is_no_image_is_not_made(image: Image, reason: str, api: docker.APIClient, tmp_path: Path) -> None:
    with pytest.raises(ImageNotMade, match=reason):
        await ensured(image)

    assert not any(exists(api, name) for name in noted(tmp_path))


@pytest.mark.asyncio
async def test_a_missing_beginning_is_not_pulled_when_pulling_is_off(context: Path) -> None:
    (context / "Dockerfile").write_text("FROM nobody/has-this:ever\n")

    with pytest.raises(ImageNotMade, match="it begins with nobody/has-this:ever: not present, and pulling is off"):
        await ensured(Image(context))


@pytest.mark.asyncio
async def test_a_beginning_that_can_not_be_pulled_is_told_as_such(context: Path) -> None:
    (context / "Dockerfile").write_text("FROM localhost:1/nobody-listens:there\n")

    with pytest.raises(ImageNotMade, match=r"it begins with localhost:1/nobody-listens:there: .*refused"):
        await ensured(Image(context), PullPolicy.MISSING)


@pytest.mark.needs("BuildKit")
@pytest.mark.asyncio
async def test_what_buildkit_alone_can_do_is_refused_without_it(context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN --mount=type=cache,target=/cache true\n")

    with pytest.raises(ImageNotMade, match="--mount option requires BuildKit"):
        await ensured(Image(context))


@pytest.mark.asyncio
async def test_an_archive_of_two_images_is_refused(tmp_path: Path, api: docker.APIClient) -> None:
    archive = write_tar(tmp_path / "two.tar", {"manifest.json": b"[{}, {}]"})

    with pytest.raises(ImageNotMade, match="the archive has 2 images, and not one"):
        await ensured(Image(archive))


@pytest.mark.parametrize("manifest", [b"", b"[1]", b"[{}]", b'[{"Config": "x", "Layers": []}]', b'[{"Config": 3}]'])
@pytest.mark.asyncio
async def test_a_damaged_archive_is_refused(tmp_path: Path, manifest: bytes) -> None:
    archive = write_tar(tmp_path / "damaged.tar", {"manifest.json": manifest})

    with pytest.raises(ImageNotMade, match="loading"):
        await ensured(Image(archive))


# --- built ------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_sandbox_runs_in_an_image_that_was_built(context: Path, engine: DockerEngine) -> None:
    (context / ".dockerignore").write_text("*.log\n# a comment\n")
    (context / "left.log").write_text("left out")
    tool = context / "tool"
    tool.write_text("#!/bin/sh\necho a tool\n")
    tool.chmod(0o755)

    async with await SandboxCore.create(engine, settings_of(Image(context))) as sandbox:
        assert (
            await sandbox.exec("cat /ran; /built/tool; ls /built")
        ).stdout.text == "ran\na tool\nDockerfile\ntool\nunique\n"
        assert sandbox.container.image == str(context)


@pytest.mark.asyncio
async def test_a_build_keeps_a_cache_and_borrows_files_of_other_images(context: Path, engine: DockerEngine) -> None:
    key = uuid.uuid4().hex
    (context / "Dockerfile").write_text(
        f"FROM {IMAGE}\n"
        f"RUN --mount=type=cache,id={key},target=/cache echo kept > /cache/file\n"
        f"RUN --mount=type=cache,id={key},target=/cache --mount=type=bind,from={IMAGE},target=/other "
        "cat /cache/file > /seen\n"
    )

    async with await SandboxCore.create(engine, settings_of(Image(context))) as sandbox:
        assert await sandbox.read_bytes("/seen") == b"kept\n"
        assert (await sandbox.exec("ls /cache")).stdout == b""


@pytest.mark.asyncio
async def test_what_was_built_is_not_built_again(context: Path) -> None:
    first, told = await ensured(Image(context))
    assert any(re.search(r"2/3\S* COPY", line) for line in told)
    assert told[-1] == ""
    for path in context.iterdir():
        os.utime(path, (0, 0))

    assert await ensured(Image(context)) == (first, [])


@pytest.mark.asyncio
async def test_whatever_goes_into_a_build_tells_images_apart(context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").write_text(
        f"FROM {IMAGE} AS one\nARG WHAT\nLABEL what=$WHAT\nCOPY . /\nFROM one AS two\nLABEL two=2\n"
    )
    (context / "Other").write_text(f"FROM {IMAGE}\nCOPY . /\nLABEL other=yes\n")
    (tmp_path / "Outside").write_text(f"FROM {IMAGE}\nCOPY . /\nLABEL outside=yes\n")

    images = [
        Image(context),
        Image(context, args={"WHAT": "else"}),
        Image(context, target="one"),
        Image(context, "Other"),
        Image(context, str(tmp_path / "Outside")),
    ]
    made = [(await ensured(image))[0] for image in images]
    (context / "unique").chmod(0o600)
    made.append((await ensured(images[0]))[0])

    assert len(set(made)) == 6


@pytest.mark.asyncio
async def test_another_image_to_begin_with_is_another_image(context: Path, api: docker.APIClient) -> None:
    repository = f"pytest-sandbox-test-{uuid.uuid4().hex[:8]}"
    (context / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nCOPY . /\n")
    image = Image(context, args={"BASE": repository})
    try:
        api.tag(IMAGE, repository)
        first, _ = await ensured(image)
        api.tag(first, repository)

        assert (await ensured(image))[0] != first
    finally:
        api.remove_image(repository)


def test_eight_processes_build_once(context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN cat /proc/sys/kernel/random/uuid > /built && : {context}\n")
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", MAKER, str(context)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )
        for _ in range(8)
    ]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "ready\n"

    made = [maker.communicate()[0] for maker in _let_go(makers)]

    # Each build would have written another number: the engine's own cache is only there when one is through.
    assert len(set(made)) == 1
    assert made[0].startswith("sha256:")


def _let_go(makers: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.close()
        maker.stdin = None
    return makers


@pytest.mark.asyncio
async def test_an_image_that_was_removed_meanwhile_is_made_again(
    context: Path, engine: DockerEngine, api: docker.APIClient, tmp_path: Path
) -> None:
    await engine.ensure_image(settings_of(Image(context)))
    [name] = noted(tmp_path)
    api.remove_image(name)

    made = await engine.ensure_image(settings_of(Image(context)))

    assert inspected(api, name)["Id"] == made


# --- loaded, imported -------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_saved_image_is_loaded_as_itself_and_takes_no_name_from_another(
    tmp_path: Path, api: docker.APIClient
) -> None:
    repository = f"pytest-sandbox-test-{uuid.uuid4().hex[:8]}"
    archive = tmp_path / "saved.tar"
    api.tag(IMAGE, repository)
    archive.write_bytes(b"".join(api.get_image(repository)))
    api.remove_image(repository)

    made, told = await ensured(Image(archive))

    assert told == ["loading saved.tar", ""]
    assert made == inspected(api, IMAGE)["Id"]
    with pytest.raises(docker.errors.ImageNotFound):
        inspected(api, repository)
    assert await ensured(Image(archive)) == (made, [])


@pytest.mark.parametrize("packed", [True, False], ids=["archive", "folder"])
@pytest.mark.asyncio
async def test_an_oci_layout_is_loaded(tmp_path: Path, engine: DockerEngine, packed: bool) -> None:
    layout = oci_layout(tmp_path / "layout")
    if packed:
        with tarfile.open(tmp_path / "layout.tar.gz", "w:gz") as tar:
            tar.add(layout, ".")
        layout = tmp_path / "layout.tar.gz"

    async with await SandboxCore.create(engine, settings_of(Image(layout))) as sandbox:
        assert await sandbox.read_bytes("/hello") == b"from a layer"


@pytest.mark.asyncio
async def test_a_root_file_system_becomes_an_image(tmp_path: Path, engine: DockerEngine) -> None:
    archive = write_tar(tmp_path / "root.tar", {"etc/motd": b"imported", "unique": uuid.uuid4().bytes})

    async with await SandboxCore.create(engine, settings_of(Image(archive))) as sandbox:
        assert await sandbox.read_bytes("/etc/motd") == b"imported"

    assert await ensured(Image(archive)) == (await engine.ensure_image(settings_of(Image(archive))), [])


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def oci_layout(folder: Path) -> Path:
    """An image of one file, as the OCI's image layout specification has it, behind an index for two architectures."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": f"sha256:{digest}",
            "size": len(content),
        }

    layer = write_tar(folder / "layer", {"hello": b"from a layer"})
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.read_bytes()).hexdigest()}"]}
    layers = [blob(layer.read_bytes())]
    layer.unlink()
    manifests = []
    for architecture in ("amd64", "arm64"):
        config = json.dumps({"architecture": architecture, "os": "linux", "rootfs": rootfs, "config": {}})
        manifest = json.dumps({"schemaVersion": 2, "config": blob(config.encode()), "layers": layers})
        platform = {"architecture": architecture, "os": "linux"}
        manifests.append({**blob(manifest.encode()), "platform": platform})
    index = blob(json.dumps({"schemaVersion": 2, "manifests": manifests}).encode())
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [index]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


# --- removed ----------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_an_image_goes_when_nobody_has_used_it_for_long(
    context: Path, tmp_path: Path, engine: DockerEngine, api: docker.APIClient
) -> None:
    await engine.ensure_image(settings_of(Image(context)))
    [name] = noted(tmp_path)
    [stamp] = (tmp_path / "cache").rglob("*.used")

    try:
        await engine.remove_unused_images(A_DAY)
        assert exists(api, name)
        os.utime(stamp, (0, 0))
        async with await SandboxCore.create(engine, settings_of(Image(context))):
            await engine.remove_unused_images(A_DAY)
            assert exists(api, name)
        await engine.remove_unused_images(A_DAY)

        assert not exists(api, name)
    finally:
        for others in set(stamp.parent.glob("*.used")) - {stamp}:
            others.unlink()  # of images that other workers have made, which have been looked at, too
