"""What type checkers say of both faces; checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import assert_type

from pytest_sandbox import (
    Archive,
    AsyncProcess,
    AsyncSandbox,
    AsyncService,
    ExecResult,
    FileStat,
    Process,
    ProcessExit,
    Sandbox,
    SandboxFactory,
    Service,
    Snapshot,
)


def blocking(sandbox: Sandbox) -> None:
    assert_type(sandbox.exec("true", timeout=1), ExecResult)
    assert_type(sandbox.exec(["true"]).stdout.text, str)
    assert_type(sandbox.read_chunks("f"), Iterator[bytes])
    assert_type(sandbox.list_dir(), list[FileStat])
    assert_type(sandbox.persist(), Archive)
    assert_type(sandbox.snapshot(), Snapshot)
    assert_type(sandbox.start_service("--port", "7000"), Service)
    assert_type(sandbox.service.log.text, str)
    assert_type(sandbox.service.stop(), ProcessExit | None)
    with sandbox.start("cat") as process:
        assert_type(process, Process)
        assert_type(process.wait(), ProcessExit)
        for line in process.stdout:
            assert_type(line, bytes)


async def awaited(sandbox: AsyncSandbox) -> None:
    assert_type(await sandbox.exec("true", timeout=1), ExecResult)
    assert_type(sandbox.read_chunks("f"), AsyncGenerator[bytes, None])
    assert_type(await sandbox.list_dir(), list[FileStat])
    assert_type(await sandbox.persist(), Archive)
    assert_type(await sandbox.snapshot(), Snapshot)
    assert_type(await sandbox.start_service(), AsyncService)
    assert_type((await sandbox.service.log).text, str)
    async with await sandbox.start("cat") as process:
        assert_type(process, AsyncProcess)
        assert_type(await process.wait(), ProcessExit)
        async for line in process.stdout:
            assert_type(line, bytes)


def made(sandbox_factory: SandboxFactory) -> None:
    assert_type(sandbox_factory(memory="512m"), Sandbox)


def refused(sandbox: Sandbox) -> None:
    sandbox.exec("true", timeout="soon")  # type: ignore[arg-type]
    sandbox.exec("true", tmieout=1)  # type: ignore[call-arg]
    sandbox.exec()  # type: ignore[call-arg]
