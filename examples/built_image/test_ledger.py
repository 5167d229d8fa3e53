"""Testing the image that is shipped: built from its Dockerfile when something in its folder has changed, else found.

Shown here: `Image` in place of an image's name, a build argument, .dockerignore; and tests of what only an image can
get wrong: rights, users, the environment, what was left in it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from pytest_sandbox import Image, Sandbox, SandboxSettings

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def sandbox_settings(sandbox_settings: SandboxSettings) -> SandboxSettings:
    """As for all examples, but in the image built here. Where it keeps its state is what is restored between tests."""
    image = Image(HERE / "image", args={"BASE": str(sandbox_settings.image)})
    return replace(sandbox_settings, image=image, workspace=PurePosixPath("/var/lib/ledger"))


def test_amounts_are_added_up_in_euros(sandbox: Sandbox) -> None:
    sandbox.exec("ledger book 1.90 CHF && ledger book 8 EUR", check=True)

    assert sandbox.exec("ledger total", check=True).stdout.text == "10.00 EUR\n"


def test_a_book_begins_empty(sandbox: Sandbox) -> None:
    """Whatever another test has booked."""
    assert sandbox.exec("ledger total", check=True).stdout.text == "0.00 EUR\n"


def test_a_currency_without_a_rate_is_refused(sandbox: Sandbox) -> None:
    result = sandbox.exec("ledger book 1 XYZ")

    assert (result.exit_code, result.stderr.text) == (1, "ledger: no rate for XYZ\n")


def test_the_service_runs_as_its_own_user_and_can_not_change_its_program(sandbox: Sandbox) -> None:
    assert sandbox.exec("id -un", check=True).stdout.text == "ledger\n"
    assert not sandbox.exec("echo evil >> /usr/local/bin/ledger").ok
    assert not sandbox.exec("echo 'EUR 2' > /etc/ledger/rates").ok


def test_nobody_else_reads_the_book(sandbox: Sandbox) -> None:
    sandbox.exec("ledger book 1 EUR", check=True)

    result = sandbox.exec("cat /var/lib/ledger/book", user="nobody", cwd="/")

    assert "Permission denied" in result.stderr.text


def test_nothing_is_in_the_image_that_should_not_be(sandbox: Sandbox) -> None:
    assert {str(entry.path) for entry in sandbox.walk("/etc/ledger")} == {"rates"}
