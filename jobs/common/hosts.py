"""Which hosts are this machine or its own network, and so ask for no API key."""

from __future__ import annotations

import ipaddress

LOCAL_NAMES = {"localhost", "host.docker.internal", "gateway.docker.internal"}


def is_private_host(host: str) -> bool:
    """Is it a loopback or private address, a `.local` or `.internal` name, or a bare name (a compose service)?"""
    if host.lower() in LOCAL_NAMES or host.endswith((".local", ".internal")) or ("." not in host and ":" not in host):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_private
