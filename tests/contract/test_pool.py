"""Sandboxes that serve one test after another.

On real engines only: sandboxes of the subprocess engine share the machine's directories, and so are never two.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from pytest_sandbox.configuration import RunSettings
from pytest_sandbox.core.archive import ArchiveSink
from pytest_sandbox.core.pool import WARM_LIMIT, SandboxPool
from pytest_sandbox.core.sandbox import SandboxCore
from pytest_sandbox.core.snapshot import Snapshot
from pytest_sandbox.engines.base import Engine, Started
from pytest_sandbox.engines.discovery import find_engine
from pytest_sandbox.errors import (
    DamagedArchive,
    EngineNotReachable,
    EngineRequestFailed,
    ImageNotAvailable,
    NoFreeSlot,
    SandboxClosed,
)
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.loop import run
from pytest_sandbox.models import Container, Isolation, OutsideChanges, SandboxSettings

from .conftest import IMAGE

pytestmark = pytest.mark.docker

Lease = Callable[..., Sandbox]
Release = Callable[[Sandbox], OutsideChanges]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = run(find_engine())
    yield engine
    run(engine.close())


class Borrowed:
    """The engine of all tests of a module, which one test's pool must not close; and the containers it started."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.describe, self.ensure_image, self.alive = engine.describe, engine.ensure_image, engine.alive
        self.post_mortem, self.remove, self.changes = engine.post_mortem, engine.remove, engine.changes
        self.rejoin, self.kept, self.sandboxes = engine.rejoin, engine.kept, engine.sandboxes
        self.facts, self.leftovers = engine.facts, engine.leftovers
        self.commit, self.images, self.remove_image = engine.commit, engine.images, engine.remove_image
        self.remove_unused_images, self.progress = engine.remove_unused_images, engine.progress
        self.notify = engine.notify
        self.create_network, self.remove_network = engine.create_network, engine.remove_network
        self.connect, self.disconnect = engine.connect, engine.disconnect
        self.started: list[Container] = []
        self.refuse_after = 100

    async def start(self, settings: SandboxSettings, name: str, *, identity: str = "", keep: bool = False) -> Started:
        if len(self.started) >= self.refuse_after:
            raise EngineRequestFailed("start", name, "no more today")
        started = await self._engine.start(settings, name, identity=identity, keep=keep)
        self.started.append(started.container)
        return started

    async def close(self) -> None:
        pass


@pytest.fixture
def borrowed(engine: Engine) -> Borrowed:
    return Borrowed(engine)


@pytest.fixture
def pool(borrowed: Borrowed) -> Iterator[SandboxPool]:
    async def find() -> Engine:
        return borrowed

    pool = SandboxPool(find, RunSettings(slots=100))  # others may use this machine, too
    yield pool
    run(pool.close())


@pytest.fixture
def lease(pool: SandboxPool, settings: SandboxSettings) -> Lease:
    def lease(baseline: Snapshot | None = None, **changes: object) -> Sandbox:
        return Sandbox(run(pool.lease(replace(settings, **changes), baseline)))  # type: ignore[arg-type]

    return lease


@pytest.fixture
def release(pool: SandboxPool) -> Release:
    return lambda sandbox: run(pool.release(sandbox._core))


def names(sandbox: Sandbox) -> list[str]:
    return [str(entry.path) for entry in sandbox.walk()]


def is_closed(sandbox: Sandbox) -> bool:
    """Whether its end has begun: it is removed beside the tests."""
    try:
        sandbox.exec(["true"])
    except SandboxClosed:
        return True
    return False


def test_a_released_sandbox_serves_the_next_lease_clean(lease: Lease, release: Release) -> None:
    first = lease()
    first.write_text("left", "x")
    process = first.start("sleep 1000")
    release(first)

    assert process.wait().exit_code == -signal.SIGKILL
    second = lease()
    assert second.name == first.name
    assert names(second) == []


def test_two_leases_at_once_are_two_sandboxes(lease: Lease) -> None:
    assert lease().name != lease().name


def test_the_lease_has_the_settings_it_was_asked_for(lease: Lease, release: Release) -> None:
    first = lease(environment={"FOR": "first"})
    release(first)

    second = lease(environment={"FOR": "second"}, timeout=7.0)

    assert second.name == first.name
    assert second.settings.timeout == 7.0
    assert second.exec("echo $FOR").stdout == b"second\n"


def test_other_limits_take_another_sandbox(lease: Lease, release: Release) -> None:
    first = lease()
    release(first)

    assert lease(pids=500).name != first.name


def test_a_baseline_is_brought_to_any_sandbox(lease: Lease, release: Release) -> None:
    first = lease()
    first.write_text("base", "x")
    baseline = first.snapshot()
    first.write_text("base", "changed")
    release(first)

    again, another = lease(baseline), lease(baseline)

    assert again.name == first.name != another.name
    assert again.read_text("base") == another.read_text("base") == "x"


def test_without_a_baseline_the_last_ones_is_gone(lease: Lease, release: Release) -> None:
    first = lease()
    first.write_text("base", "x")
    baseline = first.snapshot()
    release(first)
    release(lease(baseline))

    assert names(lease()) == []


def test_isolation_by_container_never_takes_a_used_one(lease: Lease, release: Release) -> None:
    first = lease()
    release(first)

    second = lease(isolation=Isolation.CONTAINER)
    release(second)

    assert second.name != first.name
    assert is_closed(second)
    assert lease().name == first.name


def test_no_isolation_restores_nothing_and_is_kept_apart(lease: Lease, release: Release) -> None:
    first = lease(isolation=Isolation.NONE)
    first.write_text("left", "x")
    process = first.start("sleep 1000")
    release(first)

    assert names(lease()) == []
    second = lease(isolation=Isolation.NONE)
    assert second.name == first.name
    assert second.read_text("left") == "x"
    process.kill()


def test_a_lost_sandbox_is_replaced(lease: Lease, release: Release, engine: Engine) -> None:
    first = lease()
    release(first)
    run(engine.remove(first.container))

    second = lease()

    assert second.name != first.name
    assert second.exec(["true"]).ok


def test_a_sandbox_closed_by_its_test_can_be_released(lease: Lease, release: Release) -> None:
    first = lease()
    first.close()
    release(first)

    assert lease().name != first.name


def test_no_more_than_a_few_stay_warm(lease: Lease, release: Release) -> None:
    leased = [lease() for _ in range(WARM_LIMIT + 2)]
    for sandbox in leased:
        release(sandbox)

    assert [is_closed(sandbox) for sandbox in leased] == [True, True] + [False] * WARM_LIMIT


def test_closing_ends_leased_and_warm_ones_and_may_be_repeated(
    pool: SandboxPool, lease: Lease, release: Release
) -> None:
    leased, warm = lease(), lease()
    release(warm)

    run(pool.close())
    run(pool.close())

    assert not leased.running()
    assert not warm.running()


def test_an_engine_that_was_not_found_is_not_looked_for_again(settings: SandboxSettings) -> None:
    looked = []

    async def find() -> Engine:
        looked.append("once")
        raise EngineNotReachable("unix:///nowhere", "no such file")

    pool = SandboxPool(find)
    errors = []
    for _ in range(3):
        with pytest.raises(EngineNotReachable) as raised:
            run(pool.lease(settings))
        errors.append((raised.value, len(raised.traceback)))

    assert looked == ["once"]
    assert len({error for error, _ in errors}) == 1
    assert errors[1] == errors[2]  # its traceback does not grow


def test_an_image_that_is_missing_is_not_asked_for_again(lease: Lease, caplog: pytest.LogCaptureFixture) -> None:
    missing = f"{IMAGE}-that-nobody-made"
    caplog.set_level("DEBUG", logger="pytest_sandbox.engines")
    with pytest.raises(ImageNotAvailable):
        lease(image=missing)
    caplog.clear()

    with pytest.raises(ImageNotAvailable):
        lease(image=missing)

    assert caplog.messages == []
    assert lease().exec(["true"]).ok


# --- outside of the workspace ---------------------------------------------------------------------------------------

OUTSIDE = {
    "a new file": ("echo x >/etc/left", "/etc/left"),
    "more in a file": ("echo x >>/etc/passwd", "/etc/passwd"),
    "a removed file": ("rm /etc/group", "/etc/group"),
    "another mode": ("chmod 711 /etc", "/etc"),
    "another time": ("touch /etc/passwd", "/etc/passwd"),
    "another owner": ("chown 1000 /etc/passwd", "/etc/passwd"),
    "a directory": ("mkdir -p /var/made/deep && echo x >/var/made/deep/file", "/var/made"),
    "another name": ("mv /etc/passwd /etc/moved", "/etc/moved"),
    "a link": ("ln /etc/passwd /etc/linked", "/etc/linked"),
    "the root itself": ("chmod 711 /", "/"),
    "hosts": ("echo 127.0.0.1 other >>/etc/hosts", "/etc/hosts"),
    "in /dev": ("echo x >/dev/left", "/dev/left"),
    "a name of many bytes": ("echo >\"/etc/$(printf 'a\\nb\\377')\"", "/etc/a\nb\udcff"),
}
NOTHING_OUTSIDE = {
    "reading": "cat /etc/passwd; ls -lR /etc /bin; find / -xdev >/dev/null",
    "devices": "echo x >/dev/null; head -c 1 /dev/zero",
    "the workspace": "mkdir -p a/b; echo x >a/b/c; chmod 700 .",
    "scratch": "echo x >/tmp/left; echo x >/var/tmp/left; mkdir -p /dev/shm/left/er",
    "bytecode": "mkdir /usr/__pycache__; echo x >/usr/__pycache__/module.pyc; touch /usr/__pycache__",
}


@pytest.mark.parametrize(("change", "path"), OUTSIDE.values(), ids=OUTSIDE)
def test_a_container_changed_outside_of_the_workspace_is_used_up(
    lease: Lease, release: Release, change: str, path: str
) -> None:
    first = lease()
    first.exec(change, check=True)

    changes = release(first)

    assert PurePosixPath(path) in changes.paths
    assert lease().name != first.name
    assert is_closed(first)


@pytest.mark.parametrize("work", NOTHING_OUTSIDE.values(), ids=NOTHING_OUTSIDE)
def test_a_container_not_changed_outside_stays(lease: Lease, release: Release, work: str) -> None:
    first = lease()
    first.exec(work, check=True)

    assert release(first) == OutsideChanges()
    second = lease()
    assert second.name == first.name
    assert second.list_dir("/tmp") == second.list_dir("/var/tmp") == second.list_dir("/dev/shm") == []


def test_files_written_through_the_sandbox_s_own_calls_count_too(lease: Lease, release: Release) -> None:
    first = lease()
    first.write_text("/etc/left", "x")

    assert [str(path) for path in release(first).paths] == ["/etc/left"]


def test_a_file_mapped_and_written_by_a_process_that_ends_is_noticed_outside(
    lease: Lease, release: Release, mapper: Path
) -> None:
    sandbox = lease()
    sandbox.upload(mapper, "mapper")
    sandbox.exec(["./mapper", "/etc/passwd"], check=True)

    assert [str(path) for path in release(sandbox).paths] == ["/etc/passwd"]


def test_a_file_mapped_and_written_by_a_process_that_is_killed_is_noticed_outside(
    lease: Lease, release: Release, mapper: Path
) -> None:
    sandbox = lease()
    sandbox.upload(mapper, "mapper")
    assert sandbox.start(["./mapper", "/etc/passwd"]).stdout.read_line() == b"changed\n"

    assert [str(path) for path in release(sandbox).paths] == ["/etc/passwd"]


def test_what_the_settings_tolerate_does_not_count(lease: Lease, release: Release) -> None:
    first = lease(tolerated=("/var/cache", "*.log"))
    first.exec("mkdir -p /var/cache/deep; echo x >/etc/some.log", check=True)
    assert not release(first)

    second = lease(tolerated=("/var/cache", "*.log"))
    assert second.name == first.name
    second.exec("echo x >/etc/other", check=True)
    assert [str(path) for path in release(second).paths] == ["/etc/other"]


def test_more_paths_than_can_be_kept_are_a_change(lease: Lease, release: Release) -> None:
    first = lease()
    first.exec("cd /etc; seq 20000 | xargs touch", check=True)

    changes = release(first)

    assert not changes.complete
    assert 1000 < len(changes.paths) < 20000


def test_what_a_baseline_made_outside_is_its_sandboxs_own(
    pool: SandboxPool, settings: SandboxSettings, release: Release
) -> None:
    core = run(pool.lease(settings))
    sandbox = Sandbox(core)
    sandbox.exec("mkdir /opt; echo x >/opt/made; echo y >base", check=True)
    baseline = sandbox.snapshot()
    outside = object()
    run(pool.keep_outside(core, outside))
    assert not release(sandbox)

    again = run(pool.lease(settings, baseline, outside))
    another = run(pool.lease(settings, baseline, outside))
    plain = run(pool.lease(settings))

    assert again is core
    assert pool.has_outside(again)
    assert not pool.has_outside(another)
    assert names(Sandbox(another)) == []
    assert not Sandbox(plain).exists("/opt/made")
    sandbox.exec("echo changed >/opt/made", check=True)
    assert [str(path) for path in release(sandbox).paths] == ["/opt/made"]


@pytest.mark.parametrize("warm", [False, True], ids=["new", "warm"])
def test_a_baseline_that_cannot_be_restored_leaves_no_sandbox(
    borrowed: Borrowed, lease: Lease, release: Release, warm: bool
) -> None:
    if warm:
        release(lease())
    sink = ArchiveSink()
    sink.write(b"not an archive")

    with pytest.raises(DamagedArchive):
        lease(Snapshot("damaged", sink.finish()))

    assert len(borrowed.started) == 1
    assert not run(borrowed.alive(borrowed.started[0]))


# --- started ahead ----------------------------------------------------------------------------------------------------


def test_once_used_up_one_is_kept_ready(borrowed: Borrowed, lease: Lease, release: Release) -> None:
    first = lease(isolation=Isolation.CONTAINER)
    assert len(borrowed.started) == 1
    release(first)
    release(lease(isolation=Isolation.CONTAINER))
    ahead = lease(isolation=Isolation.CONTAINER)

    assert ahead.container == borrowed.started[2]
    assert ahead.exec(["true"]).ok


def test_none_is_started_ahead_where_none_is_used_up(borrowed: Borrowed, lease: Lease, release: Release) -> None:
    for _ in range(3):
        release(lease())

    assert len(borrowed.started) == 1


def test_one_that_was_started_ahead_and_lost_is_not_given_out(
    borrowed: Borrowed, lease: Lease, release: Release, engine: Engine
) -> None:
    release(lease(isolation=Isolation.CONTAINER))
    second = lease(isolation=Isolation.CONTAINER)
    third = lease(isolation=Isolation.CONTAINER)  # was started ahead, and the next one now is
    release(lease(isolation=Isolation.CONTAINER))
    names = {second.name, third.name}
    for container in borrowed.started:
        if container.name not in names:
            run(engine.remove(container))

    assert lease(isolation=Isolation.CONTAINER).exec(["true"]).ok


def test_a_start_ahead_that_fails_fails_the_next_lease(borrowed: Borrowed, lease: Lease, release: Release) -> None:
    release(lease(isolation=Isolation.CONTAINER))
    borrowed.refuse_after = 2
    release(lease(isolation=Isolation.CONTAINER))

    with pytest.raises(EngineRequestFailed, match="no more today"):
        lease(isolation=Isolation.CONTAINER)

    borrowed.refuse_after = 100
    assert lease(isolation=Isolation.CONTAINER).exec(["true"]).ok


def test_closing_removes_what_was_started_ahead(
    borrowed: Borrowed, pool: SandboxPool, lease: Lease, release: Release, engine: Engine
) -> None:
    release(lease(isolation=Isolation.CONTAINER))
    release(lease(isolation=Isolation.CONTAINER))

    run(pool.close())

    assert not any(run(engine.alive(container)) for container in borrowed.started)


# --- slots ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def limited(
    borrowed: Borrowed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., SandboxPool]]:
    """Pools as of several processes, on an engine whose slots nobody else has."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    pools = []

    async def find() -> Engine:
        return borrowed

    def make(slots: int, timeout: float | None = 60, notify: Callable[[str], None] = print) -> SandboxPool:
        pools.append(SandboxPool(find, RunSettings(slots=slots, slots_timeout=timeout), notify))
        return pools[-1]

    yield make
    for pool in pools:
        run(pool.close())


def test_an_idle_sandbox_gives_its_slot_up_to_its_own_pool(
    limited: Callable[..., SandboxPool], settings: SandboxSettings
) -> None:
    pool = limited(1)
    first = run(pool.lease(settings))
    run(pool.release(first))

    second = run(pool.lease(replace(settings, pids=500)))

    assert second.name != first.name
    assert is_closed(Sandbox(first))


def test_an_idle_sandbox_gives_its_slot_up_to_another_process(
    limited: Callable[..., SandboxPool], settings: SandboxSettings
) -> None:
    one, other = limited(1), limited(1)
    first = run(one.lease(settings))
    run(one.release(first))

    assert run(other.lease(settings)).name != first.name
    assert is_closed(Sandbox(first))


def test_whoever_wants_more_than_there_are_is_told_so(
    limited: Callable[..., SandboxPool], settings: SandboxSettings
) -> None:
    pool = limited(2)
    run(pool.lease(settings))
    run(pool.lease(settings))

    with pytest.raises(NoFreeSlot, match="all 2 are taken, and whoever holds one waits for another") as raised:
        run(pool.lease(settings))

    assert (raised.value.slots, raised.value.held, raised.value.waited) == (2, 2, None)


def test_of_two_that_wait_for_each_other_one_goes_on(
    limited: Callable[..., SandboxPool], settings: SandboxSettings
) -> None:
    pools = [limited(2), limited(2)]
    first = [run(pool.lease(settings)) for pool in pools]

    async def both() -> list[SandboxCore | BaseException]:
        async def second(pool: SandboxPool, mine: SandboxCore) -> SandboxCore:
            try:
                return await pool.lease(settings)
            except NoFreeSlot:
                await pool.release(mine)  # as a test does that fails
                raise

        return await asyncio.gather(*map(second, pools, first), return_exceptions=True)

    kinds = sorted(type(outcome).__name__ for outcome in run(both()))

    assert kinds == ["NoFreeSlot", "SandboxCore"]


def test_waiting_for_a_slot_has_a_bound_and_is_told(
    limited: Callable[..., SandboxPool], settings: SandboxSettings
) -> None:
    told: list[str] = []
    one, other = limited(1), limited(1, timeout=1.5, notify=told.append)
    first = run(one.lease(settings))

    with pytest.raises(NoFreeSlot, match=r"none came free within 1\.5 s\nlet fewer tests run .*--sandbox-slots"):
        run(other.lease(settings))

    assert told == ["waiting for one of 1 slots; other tests' containers have them all"]
    assert Sandbox(first).exec(["true"]).ok
