"""What the first answer of a server, or its silence, tells of it: pure reading, no I/O."""

from __future__ import annotations

import re
import ssl
from html import unescape
from typing import Final

import aiohttp
from yarl import URL

from comfyserve.comfy.answers import Answer
from comfyserve.comfy.findings import Finding
from comfyserve.comfy.http import is_refusal

FIRST_QUESTION: Final = "/system_stats"


def silence(url: URL, error: Exception) -> Finding:
    """Why nothing came back from *url*, which is the server's own address."""
    told = _told(url, error)
    if is_refusal(error):
        message = f"Nothing listens at {url}: the connection was refused."
        advice = f"{told['start']} Is {url.port} the right port? ComfyUI's usual one is 8188."
        return Finding("problem", "address", message, advice)
    for kind, message, advice in _SILENCES:
        if isinstance(error, kind):
            return Finding("problem", "address", message.format(**told), advice.format(**told))
    message = f"{url} gives no answer: {told['reason']}."
    return Finding("problem", "address", message, "Check the address.")


def diagnose(url: URL, answer: Answer, *, gave_credentials: bool) -> Finding | None:
    """What is wrong with the answer to the first question; None if it is ComfyUI's."""
    if answer.is_comfyui:
        return None
    if answer.status in (401, 407):
        return _locked(url, answer, gave_credentials)
    if answer.status == 403:
        return _forbidden(url, answer)
    if 300 <= answer.status < 400:
        return _moved(url, answer)
    if answer.status in (502, 503, 504):
        message = f"A proxy answers at {url}, but no ComfyUI behind it (status {answer.status})."
        return Finding("problem", "address", message, "Start ComfyUI, or wait until it is ready.")
    if answer.status == 429:
        message = f"{url} answers that it was asked too often (status 429)."
        return Finding("problem", "admission", message, "Wait, or raise the proxy's limit.")
    message = f"{url} is not a ComfyUI: {_what_else(answer)}."
    return Finding("problem", "address", message, _NOT_COMFYUI)


def moved_to(url: URL, answer: Answer) -> URL | None:
    """The address a redirect sends us on to, without what may be secret in it."""
    location = answer.headers.get("Location")
    if not location or not 300 <= answer.status < 400:
        return None
    try:
        target = url.join(URL(location))
    except ValueError:
        return None
    return target.with_user(None).with_query(None).with_fragment(None)


def _told(url: URL, error: Exception) -> dict[str, str]:
    local = url.host in ("127.0.0.1", "localhost", "::1")
    start = "Start ComfyUI, or the built-in engine with: comfyserve engine."
    listen = "Start ComfyUI there with --listen, and let its firewall pass the port."
    return {
        "url": str(url),
        "host": url.host or "",
        "port": str(url.port),
        "plain": str(url.with_scheme("http")),
        "start": start if local else listen,
        "reason": (str(error) or type(error).__name__).rstrip("."),
    }


_SILENCES: tuple[tuple[type[Exception], str, str], ...] = (
    (
        aiohttp.ClientConnectorDNSError,
        "There is no machine named {host!r}.",
        "Check the spelling, or use its number.",
    ),
    (
        aiohttp.ClientConnectorCertificateError,
        "The certificate of {url} is not one that this machine trusts.",
        "Make its authority known with SSL_CERT_FILE=ca.pem, or accept any with --insecure-tls.",
    ),
    (
        aiohttp.ClientConnectorSSLError,
        "{url} does not speak TLS.",
        "If it is a plain ComfyUI, use {plain}.",
    ),
    (ssl.SSLError, "{url} does not speak TLS.", "If it is a plain ComfyUI, use {plain}."),
    (
        aiohttp.ConnectionTimeoutError,
        "{url} does not take the connection.",
        "Is the machine on, and does its firewall let port {port} pass? {start}",
    ),
    (
        TimeoutError,
        "{url} takes the connection and then says nothing.",
        "It may still be starting, or be stuck: look at what ComfyUI prints.",
    ),
    (
        aiohttp.ServerDisconnectedError,
        "{url} hangs up without an answer.",
        "Is it a web server, and is it http:// or https://?",
    ),
    (
        aiohttp.ClientOSError,
        "{url} cannot be reached: {reason}.",
        "Is the machine on, and on the same network? {start}",
    ),
    (
        aiohttp.ClientResponseError,
        "What answers at {url} does not speak HTTP.",
        "Check the port; ComfyUI's usual one is 8188.",
    ),
)


def _locked(url: URL, answer: Answer, gave_credentials: bool) -> Finding:
    scheme = answer.headers.get("WWW-Authenticate", "").partition(" ")[0]
    wants = f", of the kind {scheme}" if scheme else ""
    if gave_credentials:
        message = f"{url} does not accept the credentials that were given (status {answer.status})."
        return Finding("problem", "admission", message, f"Check them{wants}.")
    message = f"{url} wants credentials{wants} (status {answer.status})."
    advice = "Give --token TOKEN, or --header 'NAME:VALUE', or http://USER:PASSWORD@HOST."
    return Finding("problem", "admission", message, advice)


def _forbidden(url: URL, answer: Answer) -> Finding:
    by = answer.headers.get("Server", "")
    who = f"{by!r} in front of it" if by and "python" not in by.lower() else "it"
    message = f"{url} forbids every request: {who} answers 403."
    advice = "Let this machine pass there, or give the header that it wants with --header."
    return Finding("problem", "admission", message, advice)


def _moved(url: URL, answer: Answer) -> Finding:
    target = moved_to(url, answer)
    if target is None:
        message = f"{url} sends us on, and does not say where (status {answer.status})."
        return Finding("problem", "address", message, "Ask whoever runs the proxy there.")
    message = f"{url} sends us on to {target}."
    base = _base_of(target)
    if base is not None:
        return Finding("problem", "address", message, f"Use {base} as the address.")
    advice = (
        "That looks like a page to sign in at: give --token or --header, "
        "or reach ComfyUI behind the proxy."
    )
    return Finding("problem", "admission", message, advice)


def _base_of(target: URL) -> URL | None:
    """The server's address, if the redirect is about the same question elsewhere."""
    path = target.path.rstrip("/")
    if not path.endswith(FIRST_QUESTION):
        return None
    return target.with_path(path.removesuffix(FIRST_QUESTION)) if path else None


def _what_else(answer: Answer) -> str:
    """What a server says that is no ComfyUI, in a few words."""
    quoted = " ".join(answer.text.split())
    if title := re.search(r"<title[^>]*>(.*?)</title>", quoted[:20_000], re.I | re.S):
        name = " ".join(unescape(title[1]).split())[:60]
        return f"it answers with the page {name!r} (status {answer.status})"
    if quoted[:1] == "<":
        return f"it answers with a page (status {answer.status})"
    if answer.document is not None:
        keys = ", ".join(str(key)[:20] for key in list(answer.document)[:4]) or "nothing"
        return f"it answers with other JSON, about {keys} (status {answer.status})"
    if answer.status == 404:
        return f"it has nothing at {FIRST_QUESTION} (status 404)"
    return f"it answers with status {answer.status} and {quoted[:60]!r}"


_NOT_COMFYUI = (
    "Check the port, and whether a path belongs to the address, like http://host:8188/comfy."
)
