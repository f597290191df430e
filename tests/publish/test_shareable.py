"""What strangers read of a manifest names no folder and no private address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.publish.shareable import shareable, shareable_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/clinic.yaml", "clinic.yaml"),
        ("~/data/rows.jsonl", "rows.jsonl"),
        ("south_africa", "south_africa"),
        ("HuggingFaceTB/SmolLM2-1.7B", "HuggingFaceTB/SmolLM2-1.7B"),
        ("requirements/cpu.lock", "requirements/cpu.lock"),
        ("read /srv/a/b.txt twice", "read b.txt twice"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("https://me:pw@api.example.org:8443/v1?key=1#x", "https://api.example.org/v1"),
        ("http://192.168.0.7:8000/v1", "http://private-host"),
        ("http://host.docker.internal:8000/v1", "http://private-host"),
        ("10.0.0.5:8000", "private-host"),
        ("localhost:11434", "private-host"),
        ("8.8.8.8:443", "8.8.8.8:443"),
        ("api.openai.com", "api.openai.com"),
        ("embedded:0a1b2c", "embedded:0a1b2c"),
        ("2026-11-27T10:00:00+00:00", "2026-11-27T10:00:00+00:00"),
        ("a and/or b", "a and/or b"),
    ],
)
def test_paths_and_private_addresses_go_and_the_rest_stays(text: str, shown: str) -> None:
    assert shareable_text(text) == shown


NAME = st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True)


@given(st.lists(NAME, min_size=2, max_size=5), st.sampled_from(["", "in ", '"', "path="]))
def test_no_folder_of_an_absolute_path_is_left(parts: list[str], before: str) -> None:
    path = "/" + "/".join(parts)
    assert "/" not in shareable_text(before + path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | NAME,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAME, inner, max_size=3),
)


@given(JSON)
def test_values_without_paths_and_hosts_stay_as_they_are(value: object) -> None:
    if ".local" not in repr(value) and ".internal" not in repr(value) and "localhost" not in repr(value):
        assert shareable(value) == value
