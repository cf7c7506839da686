"""The limits of the server (settings.py)."""

import dataclasses

import pytest

from nano_llama.core.errors import UserError
from nano_llama.server.settings import ServerSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", -1), ("port", 70_000), ("max_waiting", 0), ("max_waiting", True), ("header_seconds", float("nan")),
     ("send_seconds", 0), ("max_choices", 1.5), ("max_body_bytes", "1")],
)  # fmt: skip
def test_impossible_values_are_refused_by_name(name, value):
    with pytest.raises(UserError, match=name):
        ServerSettings(**{name: value})


def test_one_body_must_fit():
    with pytest.raises(UserError, match="max_held_bytes=100 is less than one body of 80"):
        ServerSettings(max_body_bytes=500, max_image_bytes=300, max_held_bytes=100)
    assert ServerSettings(max_body_bytes=500, max_image_bytes=300, max_held_bytes=800)


def test_zero_seconds_to_drain_and_any_port_are_possible():
    assert ServerSettings(port=0, drain_seconds=0).port == 0


def test_keys_are_not_shown():
    assert "digest" not in repr(ServerSettings(api_key_digests=(b"digest",)))


def test_settings_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ServerSettings().port = 1
