"""Which hosts need a key, and what is shown of an address."""

from __future__ import annotations

import pytest

from jobs.common.errors import ConfigError
from jobs.generate.endpoint import Endpoint, remote_endpoint


def endpoint(url: str, key: str = "") -> Endpoint:
    return remote_endpoint(url, "m", "auto", "OPENAI_API_KEY", {"OPENAI_API_KEY": key})


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1",
        "http://127.0.0.1:8000/v1",
        "http://[::1]:8000/v1",
        "http://host.docker.internal:8000/v1",
        "http://192.168.1.5/v1",
        "http://10.0.0.7:11434/v1",
        "http://vllm:8000/v1",
    ],
)
def test_loopback_and_private_hosts_need_no_key(url: str) -> None:
    assert endpoint(url).key == "none"


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", "http://8.8.8.8/v1", "https://models.example.org/v1"])
def test_remote_hosts_need_a_key(url: str) -> None:
    with pytest.raises(ConfigError, match="No API key for"):
        endpoint(url)
    assert endpoint(url, "sk-1").key == "sk-1"


@pytest.mark.parametrize(
    "url",
    ["localhost:8000/v1", "ftp://host/v1", "http:///v1", "api.openai.com", "http://host:80a/v1", "http://[::1/v1"],
)
def test_what_is_no_base_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no base URL"):
        endpoint(url, "sk-1")


def test_neither_key_nor_password_is_shown() -> None:
    found = endpoint("https://api.example.org:444/v1?token=abc", "sk-very-secret")
    assert found.shown == "https://api.example.org:444"
    assert found.logical == "api.example.org:444"
    assert "sk-very-secret" not in repr(found)


def test_a_user_name_in_the_base_url_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError) as caught:
        endpoint("https://user:secret@api.example.org/v1", "sk-very-secret")
    assert "https://api.example.org: the base URL holds a user name" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["me:hunter2@host/v1?token=abc", "https://me:hunter2@host:80a/v1?token=abc"])
def test_a_password_is_not_shown_where_the_address_is_wrong(url: str) -> None:
    with pytest.raises(ConfigError, match="no base URL") as caught:
        endpoint(url, "sk-1")
    assert "hunter2" not in str(caught.value)
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-1\nsk-2", "\ufeffsk-1", "\u201csk-1\u201d", "Bearer sk-1"])
def test_what_cannot_be_a_key_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY does not hold a key alone") as caught:
        endpoint("https://api.openai.com/v1", key)
    assert "sk-1" not in str(caught.value)


def test_a_host_is_the_same_in_capitals() -> None:
    assert endpoint("https://API.example.org/v1", "sk-1").logical == "api.example.org"
