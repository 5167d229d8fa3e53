from __future__ import annotations

import pickle

import pytest

from pytest_sandbox import SandboxSettings, Secret, secret
from pytest_sandbox.secret import MASK, REMEMBERED, hidden_names, masked, remember

VALUE = "s3cr3t 'value'"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret, "_known", {})
    monkeypatch.setattr(secret, "_forms", [])


def test_a_secret_is_a_text() -> None:
    with pytest.raises(TypeError, match="a secret is a text, not bytes"):
        Secret(b"bytes")  # type: ignore[arg-type]


def test_a_secret_shows_itself_to_nobody_but_who_asks() -> None:
    value = Secret(VALUE)

    assert (repr(value), str(value), f"{value}", f"{[value]}") == ("Secret('***')", MASK, MASK, "[Secret('***')]")
    assert value.reveal() == VALUE
    assert value == Secret(VALUE) != Secret("other")
    assert value != VALUE
    assert hash(value) == hash(Secret(VALUE))


def test_a_secret_that_comes_from_another_process_is_known() -> None:
    sent = pickle.dumps(Secret(VALUE))
    secret._known.clear()
    secret._forms.clear()

    assert pickle.loads(sent) == Secret(VALUE)
    assert masked(VALUE) == MASK


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        (f"echo {VALUE};", "echo ***;"),
        ("""echo 's3cr3t '"'"'value'"'"'';""", "echo ***;"),  # as a shell takes it
        (repr(VALUE + '"'), "'***\"'"),
        ("no s3cr3t here", "no s3cr3t here"),
        ("it begins s3cr3t '...", "it begins ***..."),
        ("it begins s3c...", "it begins s3c..."),
        ("...value' ends it", "...*** ends it"),
        ("both s3cr3t...alue'.", "both ***...***."),
        ("", ""),
    ],
)
def test_a_value_is_masked_as_it_is_quoted_and_cut(text: str, safe: str) -> None:
    remember([VALUE])

    assert masked(text) == safe


def test_a_value_that_contains_another_one_is_masked_whole() -> None:
    remember(["inner", "the inner value"])

    assert masked("the inner value and inner") == "*** and ***"


def test_each_longer_line_of_a_value_is_masked() -> None:
    remember(["-----BEGIN KEY-----\n0123456789abcdef\nend\n"])

    assert masked("E   - 0123456789abcdef\nE   - the end") == "E   - ***\nE   - the end"


def test_short_values_are_left_as_they_are() -> None:
    remember(["yes"])

    assert masked("yes") == "yes"
    assert not secret.any_known()


def test_the_number_of_values_is_bounded() -> None:
    remember(f"value {number}" for number in range(REMEMBERED + 1))

    assert masked("value 0, value 1000") == "value 0, ***"


def test_names_decide_and_so_do_types() -> None:
    variables: dict[str, str | Secret] = {"my_key": "by its name", "PLAIN": "visible", "OTHER": Secret("by its type")}

    assert hidden_names(variables, ["*KEY*"]) == {"my_key", "OTHER"}
    assert masked("visible, by its name, by its type") == "visible, ***, ***"


def test_settings_show_no_secrets() -> None:
    settings = SandboxSettings(environment={"API_TOKEN": VALUE, "PLAIN": "visible", "OTHER": Secret("by its type")})

    assert "environment={'API_TOKEN': '***', 'PLAIN': 'visible', 'OTHER': '***'}" in repr(settings)
    assert masked(VALUE) == MASK
