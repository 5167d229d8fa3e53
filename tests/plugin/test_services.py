"""The image's own program, run for each test by a setting."""

from __future__ import annotations

from pathlib import Path

import pytest
from docker import DockerClient

from .conftest import IMAGE, RunSuite

pytestmark = pytest.mark.docker

# It counts its starts in the workspace, serves what it has there, and writes a last word when it is stopped.
DOCKERFILE = f"""
FROM {IMAGE}
WORKDIR /srv
COPY serve /serve
STOPSIGNAL SIGINT
ENTRYPOINT ["/serve"]
CMD ["7000"]
"""
SERVE = """\
#!/bin/sh
echo "starting with $(cat /workspace/starts 2>/dev/null) at port $1"
echo start >>/workspace/starts
trap 'echo whole >>/workspace/starts; exit 0' INT
nc -ll -p "$1" -e cat /workspace/starts &
while :; do sleep 0.02; done
"""

SUITE = """
    import pytest
    from pytest_sandbox import Baseline, NoService

    pytestmark = pytest.mark.sandbox(image="./image", service=True)

    @pytest.fixture(scope="module")
    def sandbox_baseline():
        return Baseline(commands=["until nc 127.0.0.1 7000 </dev/null; do sleep 0.02; done", "echo made >>starts"])

    names = []

    @pytest.mark.parametrize("turn", [1, 2])
    def test_each_test_finds_it_started_anew_at_the_baseline(sandbox, turn):
        names.append(sandbox.name)
        sandbox.service.wait_for("at port 7000")
        assert sandbox.service.log.text == "starting with start\\nmade\\nwhole at port 7000\\n"
        sandbox.wait_for_port(7000)
        assert sandbox.exec("nc 127.0.0.1 7000").stdout.text == "start\\nmade\\nwhole\\nstart\\n"

    def test_in_the_same_container():
        assert len(set(names)) == 1

    def test_started_by_hand(sandbox_factory):
        sandbox = sandbox_factory(service=False, baseline=False)
        with pytest.raises(NoService):
            sandbox.service
        sandbox.start_service("7001")
        sandbox.wait_for_port(7001)

    @pytest.mark.sandbox(isolation="none")
    @pytest.mark.parametrize("turn", [1, 2])
    def test_left_running_where_nothing_is_restored(sandbox, turn):
        sandbox.wait_for_port(7000)
        assert sandbox.read_text("starts") == "start\\nmade\\nwhole\\nstart\\n"

    def test_reached_by_name_from_another_sandbox(sandbox_factory):
        sandbox_factory(name="server")
        client = sandbox_factory(name="client", service=False, baseline=False)
        client.wait_for_command("nc -w 1 server 7000 </dev/null | grep whole", timeout=20)

    @pytest.mark.asyncio
    async def test_awaited(async_sandbox):
        assert await async_sandbox.service.wait_for("starting")
        assert (await async_sandbox.service.log).total_bytes > 0
"""


@pytest.fixture(autouse=True)
def image(pytester: pytest.Pytester, engine: DockerClient) -> None:
    folder = pytester.mkdir("image")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "serve").write_text(SERVE)
    (folder / "serve").chmod(0o755)


def test_it_runs_beside_each_test(suite: RunSuite) -> None:
    suite(SUITE, "--sandbox-timeout=60").assert_outcomes(passed=8)


def test_one_that_dies_fails_the_test_at_once_with_its_log(suite: RunSuite) -> None:
    (Path("image") / "serve").write_text("#!/bin/sh\necho no config in $PWD >&2; exit 3\n")

    result = suite(
        """
        import pytest

        @pytest.mark.sandbox(image="./image", service=True)
        def test_waits(sandbox):
            sandbox.wait_for_port(7000, timeout=300)

        @pytest.mark.sandbox(service=True)
        def test_there_is_none(sandbox): pass
        """
    )

    result.assert_outcomes(failed=1, errors=1)
    result.stdout.fnmatch_lines_random(
        [
            "E *ServiceFailed: the service of *, `/serve 7000`, has ended with exit code 3 after * and port 7000 did *",
            "E *no config in /srv",
            "E *NoService: * image pytest-sandbox/busybox has neither ENTRYPOINT nor CMD; *",
        ]
    )


def test_nothing_of_the_images_volumes_reaches_the_next_test(suite: RunSuite) -> None:
    (Path("image") / "Dockerfile").write_text(f"FROM {IMAGE}\nVOLUME /var/lib/box\n")

    result = suite(
        """
        import pytest

        pytestmark = pytest.mark.sandbox(image="./image")

        @pytest.mark.parametrize("turn", [1, 2])
        def test_finds_what_the_image_has(sandbox, turn):
            assert sandbox.list_dir("/var/lib/box") == []
            sandbox.write_text("/var/lib/box/left", "x")

        @pytest.mark.sandbox(workspace="/var/lib/box")
        @pytest.mark.parametrize("turn", [1, 2])
        def test_at_the_workspace_it_is_restored(sandbox, turn):
            assert sandbox.list_dir() == []
            sandbox.write_text("left", "x")
            assert sandbox.container.volumes == ()

        names = set()

        @pytest.mark.sandbox(mounts=["type=tmpfs,target=/var/lib/box"])
        @pytest.mark.parametrize("turn", [1, 2])
        def test_a_tmpfs_in_its_place_is_emptied(sandbox, turn):
            assert sandbox.list_dir("/var/lib/box") == []
            sandbox.write_text("/var/lib/box/left", "x")
            names.add(sandbox.name)
            assert len(names) == 1, "the container serves both tests"
        """
    )

    result.assert_outcomes(passed=6)
