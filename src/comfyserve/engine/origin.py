"""Requests that a web page of somewhere else makes a browser send to this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_foreign(host: str | None, origin: str | None) -> bool:
    """Whether a request to *host* on this machine comes from a page of another *origin*.

    A browser lets any page post to 127.0.0.1, and says in ``Origin`` whose page it is. Where the
    host is not this machine (a proxy is in front) that proxy has to decide.
    """
    if not host or not origin:
        return False
    try:
        asked, page = urlsplit(f"//{host.lower()}"), urlsplit(origin.lower())
        asked_port, page_port = asked.port, page.port
    except ValueError:
        return True
    if not is_loopback(asked.hostname) or not page.hostname:
        return False
    if asked.hostname != page.hostname:
        return True
    return None not in (asked_port, page_port) and asked_port != page_port


def is_loopback(name: str | None) -> bool:
    """Whether a host name means this machine, without asking anyone."""
    if name is None:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
