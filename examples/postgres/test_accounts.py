"""Testing against a real PostgreSQL: each test begins with the same accounts, and may drop the table.

Shown here: the image's server as a service, its data directory as the workspace, so that a restore brings the database
back; a client in another sandbox, which reaches it by name and nothing else; a crash, and what is left after it.
"""

from __future__ import annotations

import os

import pytest

from pytest_sandbox import Baseline, CommandFailed, Sandbox, SandboxFactory

POSTGRES = os.environ.get("POSTGRES_IMAGE", "postgres:17-alpine")  # `make demo` names another where it can't be pulled

pytestmark = pytest.mark.sandbox(
    image=POSTGRES,
    service=True,
    workspace="/var/lib/postgresql/data",
    environment={
        "POSTGRES_HOST_AUTH_METHOD": "trust",
        "POSTGRES_INITDB_ARGS": "--wal-segsize=1",  # megabyte, of which a restore writes back each that was written to
        "PGHOST": "localhost",
        "PGUSER": "postgres",
    },
    # The server leaves its socket there, and a few bytes of shared memory: nothing that the next one would mind.
    tolerated=["/run/postgresql", "/var/run/postgresql", "/proc/sysvipc/shm"],
)

UNTIL_READY = "until pg_isready -q; do sleep 0.05; done"
ACCOUNTS = """
create table account (owner text primary key, cents integer not null check (cents >= 0));
insert into account values ('ann', 1000), ('bob', 0);
"""


@pytest.fixture(scope="module")
def sandbox_baseline() -> Baseline:
    """The cluster and the table, made once; without the service they could not be made."""
    return Baseline(commands=[UNTIL_READY, ["psql", "-q", "-c", ACCOUNTS]], settings={"service": True})


@pytest.fixture
def database(sandbox: Sandbox) -> Sandbox:
    sandbox.exec(UNTIL_READY, check=True)
    return sandbox


def ask(sandbox: Sandbox, query: str) -> str:
    return sandbox.exec(["psql", "-Atq", "-c", query], check=True).stdout.text.strip()


def test_money_goes_from_one_to_the_other(database: Sandbox) -> None:
    ask(
        database,
        "begin; update account set cents = cents - 300 where owner = 'ann';"
        "update account set cents = cents + 300 where owner = 'bob'; commit",
    )

    assert ask(database, "select * from account order by owner") == "ann|700\nbob|300"


def test_nobody_gives_what_they_have_not(database: Sandbox) -> None:
    with pytest.raises(CommandFailed, match="violates check constraint"):
        ask(database, "update account set cents = cents - 1 where owner = 'bob'")


def test_a_test_may_break_everything(database: Sandbox) -> None:
    ask(database, "drop table account")


def test_and_the_next_one_finds_all_in_place(database: Sandbox) -> None:
    assert ask(database, "select * from account order by owner") == "ann|1000\nbob|0"


def test_what_was_committed_survives_a_crash_and_nothing_else_does(database: Sandbox) -> None:
    ask(database, "update account set cents = 1 where owner = 'ann'")
    with database.start(["psql", "-Atq"]) as session:
        session.write(b"begin; update account set cents = 2 where owner = 'ann' returning cents;\n")
        assert session.stdout.read_line() == b"2\n"

        database.service.kill()

    database.start_service().wait_for("database system was not properly shut down")
    database.exec(UNTIL_READY, check=True)
    assert ask(database, "select cents from account where owner = 'ann'") == "1"


def test_a_client_elsewhere_reaches_it_by_name_and_nothing_else(sandbox_factory: SandboxFactory) -> None:
    server = sandbox_factory(name="db")
    client = sandbox_factory(
        name="client", service=False, baseline=False, environment={"PGHOST": "db", "PGUSER": "postgres"}
    )
    client.exec(UNTIL_READY, check=True)

    ask(client, "insert into account values ('eve', 5)")

    assert ask(server, "select cents from account where owner = 'eve'") == "5"
    assert not client.exec("ping -c 1 -W 1 192.0.2.1").ok  # the internet is not there
