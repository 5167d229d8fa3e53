"""What a Dockerfile's text tells of its build."""

from __future__ import annotations

import pytest

from pytest_sandbox.engines.dockerfile import advised, base_images, syntax_image

STAGES = "FROM a AS one\nFROM b\nFROM c AS last\n"


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
        (
            "FROM a AS one\nFROM b\nCOPY --chown=1 --from=one . .\nCOPY --from=0 . .\nCOPY --from=c:1 . .",
            ("a", "b", "c:1"),
        ),
        ("FROM a\nRUN --mount=type=bind,from=tools,target=/t --mount=type=cache,target=/c make", ("a", "tools")),
        ("FROM a\nRUN echo COPY --from=b", ("a",)),
        ("RUN x", ()),
    ],
)
def test_the_images_that_a_dockerfile_begins_with(dockerfile: str, bases: tuple[str, ...]) -> None:
    assert base_images(dockerfile, {"GIVEN": "given"}) == bases


@pytest.mark.parametrize(
    ("target", "bases"), [("one", "a"), ("ONE", "a"), ("0", "a"), ("1", "ab"), ("last", "abc"), ("other", "abc")]
)
def test_stages_after_the_target_do_not_count(target: str, bases: str) -> None:
    assert base_images(STAGES, {}, target) == tuple(bases)


@pytest.mark.parametrize(
    ("dockerfile", "image"),
    [
        ("# syntax=docker/dockerfile:1\nFROM a", "docker/dockerfile:1"),
        ("# escape=`\n#Syntax = other\nFROM a", "other"),
        ("# a comment\n# syntax=docker/dockerfile:1\nFROM a", ""),
        ("FROM a\n# syntax=docker/dockerfile:1", ""),
        ("", ""),
    ],
)
def test_the_image_that_is_to_read_a_dockerfile(dockerfile: str, image: str) -> None:
    assert syntax_image(dockerfile) == image


def test_an_engine_that_takes_a_here_document_for_instructions_is_explained() -> None:
    reason = "dockerfile parse error line 3: unknown instruction: ECHO"

    assert "`# syntax=docker/dockerfile:1`" in advised(reason, "FROM a\nRUN <<EOF\necho one\nEOF\n")
    assert advised(reason, "FROM a\n\nECHO\n") == reason
    assert advised("exit code: 3", "FROM a\nRUN cat <<EOF\nEOF\n") == "exit code: 3"
