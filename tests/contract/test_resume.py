"""Sessions that go on in another process: left and joined again, or made anew from their last snapshot."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from pytest_sandbox.agent.build import build_sanitized
from pytest_sandbox.agent.wire import VERSION
from pytest_sandbox.async_faces import AsyncSandbox
from pytest_sandbox.core.state import SessionState
from pytest_sandbox.engines.base import Engine
from pytest_sandbox.engines.kept import KeptNotes
from pytest_sandbox.errors import (
    AgentVersionMismatch,
    InvalidState,
    NotKept,
    NotOurs,
    SandboxClosed,
    SandboxLost,
    SessionGone,
    SessionInUse,
)
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.loop import run
from pytest_sandbox.models import SandboxSettings
from tests.support.subprocess_engine import SubprocessEngine, agent_path

from .conftest import IMAGE

# A command that answers each line that it is given through a FIFO: whether it goes on can be seen.
ECHO_ON = "while read line <in; do echo $line >out; done"
ASK = "echo $0 >in; cat out"


@pytest.fixture
def own(engine: Engine, settings: SandboxSettings, tmp_path: Path) -> Iterator[SandboxSettings]:
    """Settings of sandboxes that nobody shares; those kept are removed."""
    if isinstance(engine, SubprocessEngine):
        settings = replace(settings, workspace=PurePosixPath(tmp_path / "workspace"))
    before = {each.id for each in run(engine.kept())}
    yield settings
    for each in run(engine.kept()):
        # Others keep some on this engine, too: ours are of this test, by its environment variable's default names.
        if each.id not in before and each.name in _made:
            Sandbox.remove_kept(each, engine)
    _made.clear()


_made: set[str] = set()


def kept(settings: SandboxSettings, engine: Engine) -> Sandbox:
    sandbox = Sandbox.create(settings, engine, keep=True)
    _made.add(sandbox.name)
    return sandbox


def edited(state: SessionState, **fields: object) -> str:
    document = json.loads(state.to_json())
    document["session"].update(fields)
    return json.dumps(document)


class TestStatesThatCanNotBeUsed:
    def test_each_says_what_is_wrong_with_it(self, own: SandboxSettings, engine: Engine) -> None:
        with Sandbox.create(own, engine) as sandbox:
            state = sandbox.state(snapshot=False)
        text = state.to_json()
        document = json.loads(text)

        for spoilt, reason in (
            ("", "no JSON"),
            ("[]", "no 'pytest-sandbox session'"),
            (text[:-20], "no JSON"),
            (json.dumps({**document, "format": "x"}), "no 'pytest-sandbox session'"),
            (json.dumps({**document, "version": 2}), "its version is 2, and this package reads 1"),
            (json.dumps({**document, "session": 1}), "edited"),
            (edited(state, container="0" * 64), "edited or damaged, as its checksum says"),
            (edited(state, identity="x"), "edited"),
        ):
            with pytest.raises(InvalidState, match=reason):
                SessionState.from_json(spoilt)
        for settings, reason in (({"colour": 1}, "does not know: colour"), ({"pull": "perhaps"}, "can't be read")):
            with pytest.raises(InvalidState, match=reason):
                SessionState.from_json(replace(state, settings=settings).to_json())

    def test_a_container_of_somebody_else_is_never_joined(self, own: SandboxSettings, engine: Engine) -> None:
        stranger, mine = kept(own, engine), kept(own, engine)
        state = mine.state(snapshot=False)
        mine.close()

        with pytest.raises(NotOurs, match="made by somebody else"):
            Sandbox.resume(replace(state, container=stranger.container.id), engine)
        with pytest.raises(NotOurs, match="another engine"):
            Sandbox.resume(replace(state, engine="other"), engine)
        assert stranger.exec("true").ok
        stranger.close()

    def test_a_session_that_is_gone_without_a_snapshot_says_so(self, own: SandboxSettings, engine: Engine) -> None:
        sandbox = kept(own, engine)
        state = sandbox.state(snapshot=False)
        sandbox.close()

        with pytest.raises(SessionGone, match="its container is gone, and its state has no snapshot"):
            Sandbox.resume(state, engine)
        with pytest.raises(SessionGone, match="not in the store"):
            Sandbox.resume(replace(state, snapshot="0" * 64), engine)

    def test_one_in_use_is_not_taken_away(self, own: SandboxSettings, engine: Engine) -> None:
        with kept(own, engine) as sandbox:
            state = sandbox.state(snapshot=False)

            with pytest.raises(SessionInUse, match="in use by another process"):
                Sandbox.resume(state, engine)
            assert sandbox.exec("true").ok
            sandbox.detach()
            with Sandbox.resume(state, engine) as resumed:
                with pytest.raises(SessionInUse):
                    Sandbox.resume(state, engine)
                assert resumed.exec("true").ok

    def test_one_that_is_not_kept_can_not_be_left(self, own: SandboxSettings, engine: Engine) -> None:
        with Sandbox.create(own, engine) as sandbox:
            with pytest.raises(NotKept, match="keep=True"):
                sandbox.detach()
            assert sandbox.exec("true").ok


class TestGoingOn:
    def test_files_and_commands_are_as_they_were_left(self, own: SandboxSettings, engine: Engine) -> None:
        own = replace(own, environment={"API_TOKEN": "hush", "B": "2"}, timeout=33)
        sandbox = kept(own, engine)
        sandbox.write_text("note", "before")
        sandbox.exec("mkfifo in out", check=True)
        sandbox.start(ECHO_ON)
        terminal = sandbox.terminal("stty -echo; sleep 1000")
        assert sandbox.exec(["sh", "-c", ASK, "one"]).stdout == b"one\n"
        text = sandbox.state(snapshot=False).to_json()
        sandbox.detach()
        sandbox.detach()
        with pytest.raises(SandboxClosed):
            sandbox.exec("true")
        assert terminal.finished

        with Sandbox.resume(SessionState.from_json(text), engine, environment={"API_TOKEN": "hush"}) as resumed:
            assert resumed.settings == own
            assert resumed.container == sandbox.container
            assert resumed.read_text("note") == "before"
            assert resumed.exec(["sh", "-c", ASK, "two"]).stdout == b"two\n"
            assert resumed.exec("echo $API_TOKEN $B").stdout == b"hush 2\n"
            before = resumed.snapshot()
            resumed.write_text("note", "after")
            assert resumed.changes(since=before).modified == {"note"}
            resumed.restore(before)
            assert resumed.read_text("note") == "before"
            if resumed._core.in_container:
                assert resumed.sweep() > 0
                assert resumed.exec("ps | grep -c '[s]leep 1000'").stdout == b"0\n"
            assert resumed.exec("true").ok
            assert "hush" not in text
        assert not sandbox.running()

    def test_coroutines_leave_and_resume_too(self, own: SandboxSettings, engine: Engine) -> None:
        async def scenario() -> None:
            sandbox = await AsyncSandbox.create(own, engine, keep=True)
            _made.add(sandbox.name)
            state = await sandbox.state(snapshot=False)
            await sandbox.detach()
            assert state.container in [each.id for each in await AsyncSandbox.kept(engine)]
            async with await AsyncSandbox.resume(state, engine) as resumed:
                assert (await resumed.exec("true")).ok
            assert state.container not in [each.id for each in await AsyncSandbox.kept(engine)]

        asyncio.run(scenario())

    def test_a_lost_stream_in_the_middle_of_everything_is_left_alike(
        self, own: SandboxSettings, engine: Engine
    ) -> None:
        sandbox = kept(own, engine)
        state = sandbox.state(snapshot=False)
        sandbox.start("while :; do echo flood; done; echo 1000000000000000000000")
        sandbox.start(["cat"]).write(b"x" * 100_000)

        async def lose() -> None:
            # Half a frame, then the end: what follows from another host is not its rest.
            core = sandbox._core
            await core._stream.write(b"\xff\x00\x00\x00\x02half")
            core._client.lose("as if killed")

        run(lose())

        with Sandbox.resume(state, engine) as resumed:
            assert resumed.exec("echo here").stdout == b"here\n"
            if resumed._core.in_container:
                assert resumed.exec("ps | grep -c '[e]cho flood'").stdout == b"1\n"
                resumed.sweep()
                assert resumed.exec("ps | grep -c '[e]cho flood'").stdout == b"0\n"

    def test_many_times_leaves_nothing_behind(self, own: SandboxSettings, engine: Engine) -> None:
        sandbox = kept(own, engine)
        state = sandbox.state(snapshot=False)
        descriptors = "ls /proc/1/fd | wc -l"
        before = sandbox.exec(descriptors).stdout
        for _ in range(5):
            sandbox.detach()
            sandbox = Sandbox.resume(state, engine)

        if sandbox._core.in_container:
            listed = sandbox.exec("ps -o comm | sort | uniq -c | grep agent").stdout.text.split()
            assert listed == ["2", "agent"]  # itself, and the one that lends its streams
            assert sandbox.exec(descriptors).stdout == before
        sandbox.close()

    def test_a_gone_container_is_made_anew_from_the_snapshot(
        self, own: SandboxSettings, engine: Engine, tmp_path: Path, vanish: Callable[[Sandbox], None]
    ) -> None:
        sandbox = kept(own, engine)
        sandbox.write_bytes("data", bytes(range(256)))
        sandbox.symlink("link", "/nowhere")
        state = sandbox.state(store=tmp_path / "store")
        sandbox.write_text("later", "lost")
        vanish(sandbox)
        sandbox.close()

        with Sandbox.resume(state, engine, store=tmp_path / "store") as resumed:
            _made.add(resumed.name)
            assert resumed.read_bytes("data") == bytes(range(256))
            assert str(resumed.read_link("link")) == "/nowhere"
            assert not resumed.exists("later") or isinstance(engine, SubprocessEngine)
            assert resumed.container.id != state.container
            assert resumed.state(snapshot=False).identity not in ("", state.identity)

    def test_one_that_is_not_kept_resumes_from_its_snapshot(
        self, own: SandboxSettings, engine: Engine, tmp_path: Path
    ) -> None:
        with Sandbox.create(own, engine) as sandbox:
            sandbox.write_text("note", "x")
            state = sandbox.state(store=tmp_path / "store")

        with Sandbox.resume(state, engine, store=tmp_path / "store") as resumed:
            assert resumed.read_text("note") == "x"
            assert resumed.state(snapshot=False).identity == ""

    def test_a_signal_from_inside_joins_nobody(self, own: SandboxSettings, engine: Engine) -> None:
        with kept(own, engine) as sandbox:
            agent = sandbox._core._client.hello
            assert agent is not None
            state = sandbox.state(snapshot=False)
            sandbox.start(f"while sleep 0.02; do kill -USR1 {agent.pid}; done")
            assert sandbox.exec("sleep 0.1").ok
            sandbox.detach()

            with Sandbox.resume(state, engine) as resumed:
                assert resumed.exec("sleep 0.1").ok

    def test_those_kept_are_listed_and_removed(self, own: SandboxSettings, engine: Engine) -> None:
        sandbox = kept(own, engine)
        sandbox.detach()
        [found] = [each for each in Sandbox.kept(engine) if each.name == sandbox.name]

        with pytest.raises(NotOurs):
            Sandbox.remove_kept(replace(found, identity="0" * 32), engine)
        Sandbox.remove_kept(found, engine)

        assert not sandbox.running()
        assert sandbox.name not in [each.name for each in Sandbox.kept(engine)]


class TestKeepingLater:
    """keep(): of one that was not made to be kept."""

    def test_it_goes_on_in_another_host_and_is_forgotten_when_it_is_closed(
        self, own: SandboxSettings, engine: Engine
    ) -> None:
        sandbox = Sandbox.create(own, engine)
        _made.add(sandbox.name)
        sandbox.exec("mkfifo in out", check=True)
        sandbox.start(ECHO_ON)
        sandbox.keep("test_x.py::test_y")
        sandbox.keep()
        state = sandbox.state(snapshot=False)
        [note] = [note for note in KeptNotes().all() if note.name == sandbox.name]
        sandbox.detach()

        assert sandbox.name in [each.name for each in Sandbox.kept(engine)]
        with Sandbox.resume(SessionState.from_json(note.state), engine) as resumed:
            assert resumed.exec(["sh", "-c", ASK, "one"]).stdout == b"one\n"
            assert resumed.container == sandbox.container
        assert (note.note, note.container, note.state) == (
            "test_x.py::test_y",
            sandbox.container.id,
            state.to_json(),
        )
        assert KeptNotes().find(note.identity) is None
        assert sandbox.name not in [each.name for each in Sandbox.kept(engine)]

    def test_one_that_is_lost_can_not_be_kept_and_is_not_noted(
        self, own: SandboxSettings, engine: Engine, vanish: Callable[[Sandbox], None]
    ) -> None:
        with Sandbox.create(own, engine) as sandbox:
            vanish(sandbox)

            with pytest.raises(SandboxLost):
                sandbox.keep()

            assert sandbox.name not in [note.name for note in KeptNotes().all()]


class TestOtherVersions:
    @pytest.mark.parametrize("engine", ["subprocess"], indirect=True)
    def test_an_agent_of_another_version_is_told_from_a_lost_one(self, own: SandboxSettings, tmp_path: Path) -> None:
        """The agent that a kept container has is as old as the container."""
        source = Path(__file__).parents[2] / "pytest_sandbox" / "agent" / "src"
        other = tmp_path / "agent"
        copy = tmp_path / "src"
        copy.mkdir()
        for file in source.iterdir():
            text = file.read_text().replace(f"#define PROTOCOL_VERSION {VERSION}", "#define PROTOCOL_VERSION 77")
            (copy / file.name).write_text(text)
        build_sanitized(copy, other)
        engine = SubprocessEngine((str(agent_path()),))
        own = replace(own, workspace=PurePosixPath(tmp_path / "workspace"))
        sandbox = Sandbox.create(own, engine, keep=True)
        state = sandbox.state(snapshot=False)
        sandbox.detach()

        async def swap() -> None:
            process, stream = await SubprocessEngine((str(other),))._spawn("stay")
            old = engine._agents[state.container]
            engine._agents[str(process.pid)] = process, stream
            engine.names["other"] = str(process.pid)
            engine.identities[str(process.pid)] = state.identity
            engine.agent = (str(other),)
            stream.close()
            del old

        run(swap())
        moved = replace(state, container=engine.names["other"])
        for _ in range(2):  # it is still there to be resumed by who speaks its version
            with pytest.raises(
                AgentVersionMismatch, match=rf"speaks version 77 of the protocol, this package version {VERSION}"
            ):
                Sandbox.resume(moved, engine)
        for each in Sandbox.kept(engine):
            Sandbox.remove_kept(each, engine)


@pytest.mark.docker
def test_a_killed_process_leaves_what_is_kept_and_nothing_else(tmp_path: Path) -> None:
    script = f"""
        import os, signal
        from pytest_sandbox import Sandbox, SandboxSettings

        settings = SandboxSettings(image={IMAGE!r})
        kept, other = Sandbox.create(settings, keep=True), Sandbox.create(settings)
        kept.start(["sleep", "1000"])
        print(other.name)
        print(kept.state(snapshot=False).to_json(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, check=False)
    assert killed.returncode == -9
    name, _, text = killed.stdout.decode().partition("\n")

    with Sandbox.resume(SessionState.from_json(text)) as resumed:
        assert resumed.exec("ps | grep '[s]leep 1000'").ok
        assert name not in [each.name for each in Sandbox.kept()]
        import docker

        client = docker.from_env()
        try:
            client.containers.get(name).wait(condition="removed", timeout=10)
        except docker.errors.NotFound:
            pass
        client.close()
