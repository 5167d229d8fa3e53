"""Users and groups for /etc/passwd and /etc/group, as text: what a sandbox needs of `useradd`, without that program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

FIRST_ID = 1000  # of users that are given no number: below are the system's
LAST_ID = 2**32 - 2  # -1 means "no change" to chown(2)
NO_PASSWORD = "*"  # nobody logs in; and unlike `x` it sends nobody to /etc/shadow, where there is no entry


@dataclass(frozen=True, slots=True)
class UserEntry:
    """A user as the setting has it: `name`, `name:uid`, `name:uid:group,group`; the uid may be empty.

    Without a name and a number, `::group,group`, it is groups alone. The user's own group has the same name and number.
    Other groups are made if the image lacks them; `name=gid` says with which number.
    """

    name: str
    uid: int | None
    groups: tuple[tuple[str, int | None], ...]

    @classmethod
    def parse(cls, text: str) -> UserEntry:
        """Raises ValueError."""
        name, _, rest = text.partition(":")
        number, _, listed = rest.partition(":")
        groups = (group.strip().partition("=")[::2] for group in listed.split(",") if group.strip())
        made = tuple((_name(group), _number(gid)) for group, gid in groups)
        if made and not name.strip() and not number.strip():
            return cls("", None, made)
        return cls(_name(name), _number(number), made)

    @property
    def home(self) -> str:
        return f"/home/{self.name}"


class UsersClash(Exception):
    """Two entries, or an entry and the image, can't both be: the text says why."""


def with_users(passwd: str, group: str, users: Sequence[UserEntry]) -> tuple[str, str]:
    """Return both files with these users in them; one that is there already is left as it is. Raises UsersClash."""
    people, groups = _Database(passwd, "user"), _Database(group, "group")
    # Whoever has a number of their own first: the others then get what is left. Groups that are said alone before all.
    for user in sorted(users, key=lambda user: (bool(user.name), user.uid is None)):
        if user.name:
            _add_user(people, groups, user)
        for name, wanted in user.groups:
            gid = wanted if wanted is not None else groups.number(name)
            groups.add(name, _free(groups.numbers | people.numbers) if gid is None else gid, "")
            if user.name:
                groups.join(name, user.name)
    return people.text, groups.text


def _add_user(people: _Database, groups: _Database, user: UserEntry) -> None:
    """Add a user, with a group of the same name. Raises UsersClash."""
    uid = user.uid if user.uid is not None else people.number(user.name)
    if uid is None:
        uid = _free(people.numbers | groups.numbers)
    if people.add(user.name, uid):
        gid = groups.number(user.name)
        if gid is None:
            gid = uid if uid not in groups.numbers else _free(groups.numbers)
            groups.add(user.name, gid, "")
        people.append(f"{user.name}:{NO_PASSWORD}:{uid}:{gid}::{user.home}:/bin/sh")


class _Database:
    """One of the files, line by line; lines that make no sense stay as they are."""

    def __init__(self, text: str, kind: str) -> None:
        self._kind = kind
        self._lines = [line.split(":") for line in text.splitlines()]

    @property
    def text(self) -> str:
        return "".join(":".join(fields) + "\n" for fields in self._lines)

    @property
    def numbers(self) -> set[int]:
        return {int(fields[2]) for fields in self._entries()}

    def number(self, name: str) -> int | None:
        return next((int(fields[2]) for fields in self._entries() if fields[0] == name), None)

    def add(self, name: str, number: int, members: str | None = None) -> bool:
        """Say whether the entry is missing, after adding it if it is a group's. Raises UsersClash."""
        known = self.number(name)
        if known == number:
            return False
        if known is not None:
            raise UsersClash(f"the {self._kind} {name} has the number {known} already, and not {number}")
        if number in self.numbers:
            other = next(fields[0] for fields in self._entries() if int(fields[2]) == number)
            raise UsersClash(f"the number {number} of the {self._kind} {name} belongs to {other}")
        if members is not None:
            self.append(f"{name}:{NO_PASSWORD}:{number}:{members}")
        return True

    def append(self, line: str) -> None:
        self._lines.append(line.split(":"))

    def join(self, group: str, user: str) -> None:
        fields = next(fields for fields in self._entries() if fields[0] == group)
        members = [member for member in fields[3].split(",") if member]
        fields[3] = ",".join(members if user in members else [*members, user])

    def _entries(self) -> Iterator[list[str]]:
        return (fields for fields in self._lines if len(fields) > 3 and fields[2].isdecimal())


def _free(taken: Iterable[int]) -> int:
    used = set(taken)
    return next(number for number in range(FIRST_ID, LAST_ID) if number not in used)


def _name(text: str) -> str:
    name = text.strip()
    # What useradd takes, and a little more; what matters is that it can't be another field, line, path or number.
    if (
        not name
        or len(name) > 32
        or not name[0].isalpha()
        or not name.replace("-", "_").replace(".", "_").isidentifier()
    ):
        raise ValueError(text)
    return name


def _number(text: str) -> int | None:
    if not text.strip():
        return None
    number = int(text)
    if not 0 <= number <= LAST_ID:
        raise ValueError(text)
    return number
