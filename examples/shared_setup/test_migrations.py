"""Migrating a large database: seconds of set-up, paid once for all workers and for every run after the first.

Shown here: a set-up declared as a Baseline, so that it can be kept; tests that each begin with the whole database and
may ruin it. Try `pytest -n 4` twice, and `--sandbox-refresh`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_sandbox import Baseline, Sandbox

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def sandbox_baseline() -> Baseline:
    # Only what the expensive part needs. migrate.py comes with each test, so that changing it costs no new database.
    return Baseline(trees={"fill.py": HERE / "fill.py"}, commands=["python3 fill.py", "rm fill.py"])


@pytest.fixture
def shop(sandbox: Sandbox) -> Sandbox:
    sandbox.upload(HERE / "migrate.py", "migrate.py")
    return sandbox


def ask(shop: Sandbox, query: str) -> str:
    """The answer of the database, its columns separated by blanks."""
    program = f"import sqlite3; print(*sqlite3.connect('shop.db').execute({query!r}).fetchone())"
    return shop.exec(["python3", "-c", program], check=True).stdout.text.strip()


def test_every_order_keeps_its_customer_and_its_cents(shop: Sandbox) -> None:
    before = ask(shop, "select count(*), sum(cents), count(distinct customer) from orders")

    shop.exec("python3 migrate.py", check=True)

    assert ask(shop, "select count(*), sum(cents), count(distinct customer_id) from orders") == before
    assert ask(shop, "select count(*) from orders where customer_id is null") == "0"


def test_migrating_again_changes_nothing(shop: Sandbox) -> None:
    shop.exec("python3 migrate.py", check=True)
    migrated = shop.snapshot()

    shop.exec("python3 migrate.py", check=True)

    assert not shop.changes(migrated)


@pytest.mark.parametrize("kibibytes", [100, 15_000])
def test_a_full_disk_leaves_the_old_database(shop: Sandbox, kibibytes: int) -> None:
    result = shop.exec(f"ulimit -f {kibibytes * 2}; python3 migrate.py")  # dash counts in blocks of 512 bytes

    assert result.exit_code == 1
    assert result.stderr.text.startswith("migrate: ")
    assert ask(shop, "select count(customer) from orders") == "100000"
    assert ask(shop, "pragma integrity_check") == "ok"


def test_a_damaged_database_is_refused(shop: Sandbox) -> None:
    shop.exec("dd if=/dev/zero of=shop.db bs=4096 count=1 seek=1 conv=notrunc", check=True)

    result = shop.exec("python3 migrate.py")

    assert result.exit_code == 1
    assert "malformed" in result.stderr.text


def test_two_at_a_time_do_not_meet(shop: Sandbox) -> None:
    with shop.start("python3 migrate.py") as one, shop.start("python3 migrate.py") as other:
        assert {one.wait().exit_code, other.wait().exit_code} <= {0, 1}  # the second finds it done, or locked

    assert ask(shop, "select count(*) from orders where customer_id is null") == "0"


def test_nothing_of_it_is_left_for_the_next_test(shop: Sandbox) -> None:
    assert ask(shop, "pragma user_version") == "0"
    shop.remove("shop.db")
