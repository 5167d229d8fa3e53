"""Slots: locks on files, shared by everything that runs as this user."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_sandbox.engines.slots import Slots, default_count
from pytest_sandbox.models import MEBIBYTE, EngineDescription

GIBIBYTE = 1024 * MEBIBYTE
ENGINE = EngineDescription("docker", "1", "unix:///nowhere", "x86_64", "an engine", cores=2, memory=8 * GIBIBYTE)

HOLDER = f"""
from pytest_sandbox.engines.slots import Slots
from pytest_sandbox.models import EngineDescription
slot = Slots({ENGINE!r}, 1).take()
print("none" if slot is None else "taken", flush=True)
input()
"""


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def holder() -> subprocess.Popen[str]:
    """Another process that has the only slot, or says `none`."""
    return subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str], how: Callable[[subprocess.Popen[str]], object]) -> None:
    how(process)
    process.communicate()


def test_no_more_are_taken_than_there_are() -> None:
    slots = Slots(ENGINE, 2)
    taken = [slots.take(), slots.take()]
    assert None not in taken
    assert slots.take() is None
    assert taken[0] is not None

    taken[0].release()
    taken[0].release()

    assert slots.take() is not None
    assert slots.take() is None


def test_engines_have_slots_of_their_own() -> None:
    other = EngineDescription("docker", "1", "unix:///nowhere", "x86_64", "another", cores=2, memory=8 * GIBIBYTE)

    assert Slots(ENGINE, 1).take() is not None
    assert Slots(other, 1).take() is not None


def test_other_processes_have_the_same_slots() -> None:
    slot = Slots(ENGINE, 1).take()
    assert slot is not None
    other = holder()

    assert said(other) == "none"
    end(other, lambda process: process.kill())


@pytest.mark.parametrize("how", [subprocess.Popen.kill, subprocess.Popen.terminate], ids=["kill", "terminate"])
def test_a_slot_is_free_when_its_process_was_killed(how: Callable[[subprocess.Popen[str]], object]) -> None:
    other = holder()
    assert said(other) == "taken"
    assert Slots(ENGINE, 1).take() is None

    end(other, how)

    assert Slots(ENGINE, 1).take() is not None


def test_a_forked_child_does_not_keep_its_parents_slot() -> None:
    slots = Slots(ENGINE, 1)
    slot = slots.take()
    assert slot is not None
    forking = multiprocessing.get_context("fork")
    forked, done = forking.Event(), forking.Event()

    def live() -> None:
        forked.set()
        done.wait()

    child = forking.Process(target=live)
    child.start()
    forked.wait()

    slot.release()
    again = slots.take()

    done.set()
    child.join()
    assert again is not None


def test_who_waits_is_seen_and_only_then() -> None:
    slots = Slots(ENGINE, 1)
    assert not slots.wanted()

    with slots.waiting([]), slots.waiting([]):
        assert slots.wanted()

    assert not slots.wanted()


def test_a_deadlock_is_told_to_the_one_who_closes_the_circle() -> None:
    one, other = Slots(ENGINE, 2), Slots(ENGINE, 2)
    of_one, of_other = one.take(), other.take()
    assert of_one is not None
    assert of_other is not None

    with one.waiting([of_one]):
        assert not one.is_deadlock([of_one])
        with other.waiting([of_other]):
            assert other.is_deadlock([of_other])
        assert not one.is_deadlock([of_one])


def test_whoever_has_all_slots_and_wants_another_is_in_a_deadlock() -> None:
    slots = Slots(ENGINE, 2)
    taken = [slot for slot in (slots.take(), slots.take()) if slot is not None]

    assert slots.is_deadlock(taken)


def test_there_is_no_deadlock_with_a_slot_whose_holder_waited_and_died() -> None:
    slots = Slots(ENGINE, 2)
    mine, dead = slots.take(), slots.take()
    assert mine is not None
    assert dead is not None
    slots.is_deadlock([dead])
    dead.release()

    assert not slots.is_deadlock([mine])


@pytest.mark.parametrize(
    ("cores", "memory", "count"),
    [(2, 8 * GIBIBYTE, 16), (8, 64 * GIBIBYTE, 64), (2, 2 * GIBIBYTE, 8), (1, 256 * MEBIBYTE, 4)],
)
def test_the_default_goes_by_cores_and_memory(cores: int, memory: int, count: int) -> None:
    assert default_count(EngineDescription("docker", "1", "", "x86_64", "", cores, memory)) == count
