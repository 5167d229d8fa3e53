"""Engines that freeze, die and come back during a run: it ends within its limits, says why, and leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.private_engine import CGROUPS, PrivateEngine

from .conftest import IMAGE

pytestmark = pytest.mark.private_engine


def test_an_engine_of_ones_own_leaves_nothing() -> None:
    with PrivateEngine(IMAGE) as engine:
        api = engine.client()
        host = api.create_host_config(network_mode="none")
        container = api.create_container(IMAGE, ["sleep", "1000"], host_config=host)["Id"]
        api.start(container)
        process = api.inspect_container(container)["State"]["Pid"]
        api.close()
        daemon = engine.pid
        folder = Path(engine.endpoint.removeprefix("unix://")).parent
        assert process > 1  # in the engine's own namespace

    assert not Path(f"/proc/{daemon}").exists()
    assert not folder.exists()
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
    assert not list(CGROUPS.glob(f"**/{folder.name}"))
