"""What a Dockerfile's text tells of the images that it begins with."""

from __future__ import annotations

import pytest

from pytest_sandbox.engines.local_images import base_images


@pytest.mark.parametrize(
    ("dockerfile", "bases"),
    [
        ("FROM debian", ("debian",)),
        (
            "# FROM a\nfrom --platform=linux/amd64 a:1 as one\nFROM one\nFROM b@sha256:0 AS two\nFROM scratch",
            ("a:1", "b@sha256:0"),
        ),
        ("ARG BASE=a\nARG TAG\nFROM $BASE:${TAG:-2}\nARG BASE=c\nFROM ${BASE}", ("a:2", "a")),
        ('ARG GIVEN="x"\nFROM \\\n  ${GIVEN}', ("given",)),
        ("RUN x", ()),
    ],
)
def test_the_images_that_a_dockerfile_begins_with(dockerfile: str, bases: tuple[str, ...]) -> None:
    assert base_images(dockerfile, {"GIVEN": "given"}) == bases
