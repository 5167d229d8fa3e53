"""Sandboxes of one test in a network of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from docker import DockerClient

from tests.plugin.conftest import RunSuite

pytestmark = pytest.mark.docker

TESTS = """
from pathlib import Path
import pytest
from pytest_sandbox.engines.runs import current_run
from pytest_sandbox.errors import NameTaken

@pytest.mark.parametrize("number", range(2))
def test_names_are_each_tests_own(sandbox_factory, number):
    server, client = sandbox_factory(name="server"), sandbox_factory(name="client")
    server.start("echo hello | nc -l -p 7000")
    with Path("runs").open("a") as runs:
        print(current_run().id, file=runs)
    client.wait_for_command("nc -w 1 server 7000 < /dev/null | grep hello", timeout=20)
    with pytest.raises(NameTaken):
        sandbox_factory(name="server")

def test_a_sandbox_without_a_name_is_alone(sandbox_factory):
    sandbox_factory(name="server")
    assert sandbox_factory().exec("ls /sys/class/net").stdout.text.split() == ["lo"]

@pytest.mark.asyncio
async def test_awaited(async_sandbox_factory):
    await async_sandbox_factory(name="server")
    client = await async_sandbox_factory(name="client")
    assert (await client.exec("ping -c 1 -W 5 server")).ok
"""


def test_sandboxes_of_a_test_reach_each_other_by_name(suite_both_ways: RunSuite, engine: DockerClient) -> None:
    result = suite_both_ways(TESTS)

    result.assert_outcomes(passed=4)
    result.stdout.no_fnmatch_line("*outside of the workspace*")
    runs = Path("runs").read_text().split()
    left = [engine.networks.list(filters={"label": f"pytest-sandbox.run={run}"}) for run in runs]
    assert left == [[]] * len(runs)
