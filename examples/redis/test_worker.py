"""Testing a program against a real Redis: the program in one sandbox, the server in another one.

Shown here: two images in one test, a service started by hand with arguments of the test's choice, what the worker
makes of a server that is gone, and what the server still knows after a crash.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_sandbox import Sandbox, SandboxFactory

REDIS = os.environ.get("REDIS_IMAGE", "redis:7-alpine")  # `make demo` names another where it can't be pulled
HERE = Path(__file__).parent
DURABLE = ("redis-server", "--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def redis(sandbox_factory: SandboxFactory) -> Sandbox:
    """A Redis that writes down each change before it answers."""
    redis = sandbox_factory(name="redis", image=REDIS, workspace="/data")
    redis.start_service(*DURABLE)
    redis.wait_for_port(6379)
    return redis


@pytest.fixture
def worker(sandbox_factory: SandboxFactory) -> Sandbox:
    worker = sandbox_factory(name="worker")
    worker.upload(HERE / "worker.py", "worker.py")
    return worker


def tell(redis: Sandbox, *words: str) -> list[str]:
    return redis.exec(["redis-cli", *words], check=True).stdout.text.split()


def work(worker: Sandbox) -> str:
    return worker.exec("python3 worker.py redis", check=True).stdout.text.strip()


def test_a_job_is_done_once(redis: Sandbox, worker: Sandbox) -> None:
    tell(redis, "RPUSH", "jobs", "sweep")

    assert [work(worker), work(worker)] == ["did sweep", "nothing to do"]

    assert tell(redis, "LRANGE", "done", "0", "-1") == ["SWEEP"]
    assert tell(redis, "LRANGE", "under-way", "0", "-1") == []


def test_a_server_that_crashes_has_lost_nothing(redis: Sandbox, worker: Sandbox) -> None:
    tell(redis, "RPUSH", "jobs", "sweep", "dust")
    work(worker)

    redis.service.kill()
    gone = worker.exec("python3 worker.py redis")
    redis.start_service(*DURABLE)
    redis.wait_for_port(6379)

    assert gone.exit_code == 75
    assert gone.stderr.text.startswith("no Redis at redis: ")
    assert work(worker) == "did dust"
    assert tell(redis, "LRANGE", "done", "0", "-1") == ["SWEEP", "DUST"]


def test_a_server_that_can_not_start_says_why(sandbox_factory: SandboxFactory) -> None:
    redis = sandbox_factory(image=REDIS, workspace="/data")

    service = redis.start_service("redis-server", "--no-such-option", "1")

    assert b"no-such-option" in service.wait_for("no-such-option")
    assert service.wait().exit_code == 1
