"""Entries of /etc/passwd and /etc/group."""

from __future__ import annotations

import pytest

from pytest_sandbox.core.users import UserEntry, UsersClash, with_users

PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
GROUP = "root:x:0:\nstaff:x:50:carol\nnogroup:x:65534:\n"


def made(*users: str, passwd: str = PASSWD, group: str = GROUP) -> tuple[str, str]:
    return with_users(passwd, group, [UserEntry.parse(user) for user in users])


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "a b",
        "a/b",
        "1",
        "-a",
        "a\nb",
        "a:b",
        "a:-1",
        "a:4294967295",
        "a:1:b c",
        "a:1:b=x",
        "x" * 33,
        "::",
        ":1:b",
        "::b c",
    ],
)
def test_what_is_no_user_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        UserEntry.parse(text)


@pytest.mark.parametrize(
    ("users", "reason"),
    [
        (["root:5"], "the user root has the number 0 already, and not 5"),
        (["ann:65534"], "the number 65534 of the user ann belongs to nobody"),
        (["ann:7", "bob:7"], "the number 7 of the user bob belongs to ann"),
        (["ann:7", "ann:8"], "the user ann has the number 7 already, and not 8"),
        (["ann:7:staff=51"], "the group staff has the number 50 already, and not 51"),
        (["ann:7:new=50"], "the number 50 of the group new belongs to staff"),
    ],
)
def test_entries_that_can_not_both_be_are_refused(users: list[str], reason: str) -> None:
    with pytest.raises(UsersClash, match=reason):
        made(*users)


def test_a_user_has_a_group_of_the_same_name_and_number() -> None:
    assert made("ann:7") == (PASSWD + "ann:*:7:7::/home/ann:/bin/sh\n", GROUP + "ann:*:7:\n")


def test_numbers_that_are_not_given_are_the_first_free_ones() -> None:
    passwd, group = made("ann", "bob:1000", "carol:", passwd="", group="taken:x:1001:\n")

    assert [line.split(":")[:4] for line in passwd.splitlines()] == [
        ["bob", "*", "1000", "1000"],
        ["ann", "*", "1002", "1002"],
        ["carol", "*", "1003", "1003"],
    ]
    assert group.splitlines()[1:] == ["bob:*:1000:", "ann:*:1002:", "carol:*:1003:"]


def test_groups_are_made_alone() -> None:
    passwd, group = made("::team=60,staff", "ann:7:team")

    assert passwd == PASSWD + "ann:*:7:7::/home/ann:/bin/sh\n"
    assert group.splitlines()[-2:] == ["team:*:60:ann", "ann:*:7:"]
    assert group.count("staff:") == 1


def test_groups_are_joined_and_made_when_they_are_missing() -> None:
    _, group = made("ann:7:staff,new=60", "bob:8:new, staff")

    assert group.splitlines() == [
        "root:x:0:",
        "staff:x:50:carol,ann,bob",
        "nogroup:x:65534:",
        "ann:*:7:",
        "new:*:60:ann,bob",
        "bob:*:8:",
    ]


def test_a_user_of_the_image_stays_as_it_is_and_may_join_groups() -> None:
    passwd, group = made("nobody::staff")

    assert passwd == PASSWD
    assert "staff:x:50:carol,nobody" in group


def test_lines_that_make_no_sense_stay() -> None:
    strange = "+::::::\n# comment\n\nshort:x\n"

    assert made("ann:7", passwd=strange, group="")[0].startswith(strange)
