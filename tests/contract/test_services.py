"""The image's own program, run beside the commands."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path, PurePosixPath
from time import monotonic

import docker
import pytest

from pytest_sandbox import Image, NoService, ServiceFailed
from pytest_sandbox.engines.base import Engine
from pytest_sandbox.engines.discovery import find_engine
from pytest_sandbox.errors import CommandNotFound, NotAnswering, SandboxClosed, SandboxLost
from pytest_sandbox.faces import Sandbox, Service
from pytest_sandbox.loop import run
from pytest_sandbox.models import MEBIBYTE, ImageProgram, SandboxSettings
from tests.support.subprocess_engine import SubprocessEngine

from .conftest import IMAGE

# Whatever a test wants to be the service is a script, in the place of the CMD.
PROGRAM = ImageProgram(("/bin/sh", "-c"), ("echo as in the image; exec sleep 1000",), "/usr", "SIGINT")
DOCKERFILE = f"""
FROM {IMAGE}
USER tester
WORKDIR {PROGRAM.directory}
STOPSIGNAL {PROGRAM.stop_signal}
ENV GREETING=hello
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["{PROGRAM.arguments[0]}"]
"""
DIES = "echo no database in /data >&2; exit 3"
NEVER = 9  # a port (discard) that nothing here listens on


@pytest.fixture(scope="module", params=["subprocess", pytest.param("docker", marks=pytest.mark.docker)])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "docker":
        engine: Engine = run(find_engine())
    else:
        engine = SubprocessEngine(program=PROGRAM, environment={**os.environ, "GREETING": "hello"})
    yield engine
    run(engine.close())


@pytest.fixture(scope="module")
def settings(
    engine: Engine, settings: SandboxSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SandboxSettings]:
    if isinstance(engine, SubprocessEngine):
        yield settings
        return
    folder = tmp_path_factory.mktemp("image")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    made = replace(settings, image=Image(folder))
    image = run(engine.ensure_image(made))
    yield made
    run(engine.remove_image(image))


def started(sandbox: Sandbox, script: str) -> Service:
    return sandbox.start_service(script)


def test_it_is_what_the_image_has(sandbox: Sandbox) -> None:
    service = sandbox.start_service()

    assert service.wait_for("as in") == b"as in the image\n"
    assert service.command == (*PROGRAM.entrypoint, *PROGRAM.arguments)
    assert not service.finished
    assert service.exit is None


def test_its_directory_and_environment_are_the_images(sandbox: Sandbox) -> None:
    service = sandbox.start_service('echo "$GREETING $NAME from $PWD"', env={"NAME": "world"})

    assert service.wait_for("from") == b"hello world from /usr\n"


@pytest.mark.docker
@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_who_stops_its_container_through_the_engine_need_not_wait(
    engine: Engine, settings: SandboxSettings, tmp_path: Path
) -> None:
    """Whatever STOPSIGNAL the image has for its own program."""
    with Sandbox.create(settings, engine) as sandbox:
        sandbox.start_service("trap '' TERM INT; sleep 1000")

        with closing(docker.from_env().api) as api:
            begun = monotonic()
            api.stop(sandbox.container.id, timeout=20)
            taken = monotonic() - begun

        with pytest.raises(SandboxLost, match=r"stopped from outside of the sandbox \(SIGTERM\)"):
            sandbox.exec("true")
    assert taken < 5


@pytest.mark.docker
def test_its_user_is_the_images_whoever_runs_commands(settings: SandboxSettings, engine: Engine) -> None:
    if isinstance(engine, SubprocessEngine):
        pytest.skip("no users of an image without an engine")
    with Sandbox.create(replace(settings, user="root"), engine) as sandbox:
        assert sandbox.exec(["id", "-un"]).stdout == b"root\n"
        assert started(sandbox, "id -un; exec sleep 1000").wait_for("") == b"tester\n"


def test_its_log_has_both_streams_in_order(sandbox: Sandbox) -> None:
    service = started(sandbox, "echo one; echo two >&2; echo three; exit 4")

    end = service.wait(timeout=20)

    assert (end.exit_code, service.exit) == (4, end)
    assert service.log.text == "one\ntwo\nthree\n"
    assert service.finished


def test_its_log_is_bounded_and_counted_and_never_stalls_it(sandbox: Sandbox) -> None:
    service = started(sandbox, "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo done; exec sleep 1000")

    service.wait_for("done")

    assert service.log.total_bytes == 3_000_006
    assert len(service.log) == MEBIBYTE
    assert service.log.endswith(b"x\ndone\n")


def test_a_line_is_waited_for_or_found(sandbox: Sandbox) -> None:
    service = started(sandbox, "printf 'rea'; sleep 0.1; printf 'dy 1\\nready 2\\nthe end'")

    assert service.wait_for("ready") == b"ready 1\n"
    assert service.wait_for(re.compile(rb"\w+ [2-9]")) == b"ready 2\n"
    assert service.wait_for("ready") == b"ready 1\n"
    assert service.wait_for("end") == b"the end"  # without its newline, once nothing more can come


def test_a_line_that_does_not_come_in_time_is_missed_with_the_last_ones(sandbox: Sandbox) -> None:
    service = started(sandbox, "echo waiting for a friend; exec sleep 1000")
    service.wait_for("friend")

    with pytest.raises(NotAnswering, match=r"(?s)service's log, a line with 'ready',.* 0.1 s.*waiting for a friend"):
        service.wait_for("ready", timeout=0.1)


def test_a_line_can_not_come_once_it_has_ended(sandbox: Sandbox) -> None:
    with pytest.raises(ServiceFailed, match=r"(?s)exit code 3 .* a line with 'ready' did not come.*no database"):
        started(sandbox, DIES).wait_for("ready")


def test_whoever_waits_for_a_port_is_told_at_once_that_it_has_died(sandbox: Sandbox) -> None:
    started(sandbox, DIES)

    with pytest.raises(ServiceFailed) as failed:
        sandbox.wait_for_port(NEVER, timeout=300)

    assert re.fullmatch(
        rf"the service of {sandbox.name}, `/bin/sh -c '{DIES}'`, has ended with exit code 3 after \d\.\d\d s, "
        rf"and port {NEVER} did not answer\nits log:\n  no database in /data",
        str(failed.value),
    )
    assert failed.value.failure.value == "command"
    assert failed.value.end is not None
    assert failed.value.end.exit_code == 3


def test_an_attempt_that_hangs_is_given_up_when_it_dies(sandbox: Sandbox) -> None:
    started(sandbox, "sleep 0.2; kill -9 $$")

    with pytest.raises(ServiceFailed, match=r"signal 9 .* `sleep 1000` did not answer\nits log is empty"):
        sandbox.wait_for_command("sleep 1000", timeout=300)

    assert sandbox.exec("ps | grep '[s]leep 1000$'").exit_code == 1


def test_what_answers_all_the_same_is_an_answer(sandbox: Sandbox) -> None:
    started(sandbox, DIES).wait(timeout=20)

    sandbox.wait_for_command("true")


@pytest.mark.parametrize("end", ["kill", "stop", "terminate"])
def test_one_that_was_ended_here_has_not_failed(sandbox: Sandbox, end: str) -> None:
    service = started(sandbox, "exec sleep 1000")

    getattr(service, end)()

    with pytest.raises(NotAnswering):
        sandbox.wait_for_port(NEVER, timeout=0.1)


@pytest.mark.parametrize("sweep", ["sweep", "reset"])
def test_one_that_was_swept_has_not_failed(sandbox: Sandbox, sweep: str) -> None:
    service = started(sandbox, "exec sleep 1000")

    getattr(sandbox, sweep)()

    with pytest.raises(NotAnswering):
        sandbox.wait_for_port(NEVER, timeout=0.1)
    assert service.wait(timeout=20).exit_code == -signal.SIGKILL


def test_one_that_went_into_the_background_has_not_failed(sandbox: Sandbox) -> None:
    started(sandbox, "sleep 1000 & exit 0").wait(timeout=20)

    with pytest.raises(NotAnswering):
        sandbox.wait_for_port(NEVER, timeout=0.1)


def test_it_is_stopped_by_the_images_signal(sandbox: Sandbox) -> None:
    service = started(sandbox, "trap 'echo writing it all out; exit 0' INT; echo up; while :; do sleep 0.02; done")
    service.wait_for("up")

    end = service.stop()

    assert end is not None
    assert end.exit_code == 0
    assert service.log.text == "up\nwriting it all out\n"
    assert service.stop() == end


def test_one_that_does_not_stop_is_killed(sandbox: Sandbox) -> None:
    service = started(sandbox, "trap '' INT; echo up; while :; do sleep 0.02; done")
    service.wait_for("up")

    end = service.stop(grace=0.1)

    assert end is not None
    assert end.exit_code == -signal.SIGKILL


def test_starting_it_again_ends_the_first(sandbox: Sandbox) -> None:
    first = started(sandbox, "exec sleep 1000")

    second = started(sandbox, "exec sleep 1000")

    assert first.finished
    assert not second.finished
    assert sandbox.service.pid == second.pid


def test_a_sandbox_that_is_lost_is_no_failure_of_its_service(settings: SandboxSettings, engine: Engine) -> None:
    with Sandbox.create(replace(settings, service=True), engine) as sandbox:
        service = sandbox.service
        run(engine.remove(sandbox.container))

        with pytest.raises(SandboxLost):
            service.wait_for("something else")
        with pytest.raises(SandboxLost):
            sandbox.wait_for_port(NEVER)

    assert service.finished
    with pytest.raises(SandboxClosed):
        service.wait_for("something else")


# --- without an engine ----------------------------------------------------------------------------------------------


@pytest.fixture
def plain(tmp_path: Path) -> SandboxSettings:
    return SandboxSettings(workspace=PurePosixPath(tmp_path / "workspace"), service=True)


def test_a_fork_has_a_service_of_its_own(plain: SandboxSettings) -> None:
    with Sandbox.create(plain, SubprocessEngine(program=PROGRAM)) as sandbox, sandbox.fork() as fork:
        assert fork.service.pid != sandbox.service.pid
        assert not fork.service.finished


def test_a_session_that_goes_on_from_its_snapshot_has_a_service_again(plain: SandboxSettings, tmp_path: Path) -> None:
    engine = SubprocessEngine(program=PROGRAM)
    with Sandbox.create(plain, engine) as sandbox:
        state = sandbox.state(store=tmp_path / "store")

    with Sandbox.resume(state, engine, store=tmp_path / "store") as resumed:
        assert resumed.service.wait_for("as in")


def test_an_image_without_a_program_is_a_wrong_setting(plain: SandboxSettings) -> None:
    engine = SubprocessEngine()

    with pytest.raises(NoService, match="image none has neither ENTRYPOINT nor CMD; run a command with start"):
        Sandbox.create(plain, engine)

    assert engine.names == {}


def test_a_program_that_is_missing_leaves_nothing_behind(plain: SandboxSettings) -> None:
    engine = SubprocessEngine(program=ImageProgram(("/no/such/program",)))

    with pytest.raises(CommandNotFound, match="/no/such/program"):
        Sandbox.create(plain, engine)

    assert engine.names == {}


def test_a_service_that_nobody_started_is_told_so(plain: SandboxSettings) -> None:
    with (
        Sandbox.create(replace(plain, service=False), SubprocessEngine(program=PROGRAM)) as sandbox,
        pytest.raises(NoService, match=r"none was started; set service=True, or call start_service\(\)"),
    ):
        sandbox.service  # noqa: B018  # the property raises
