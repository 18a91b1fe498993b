"""Whether W&B records online or offline: it asks no one, and waits no longer than a moment."""

from __future__ import annotations

import netrc
import os
import socket
import urllib.request
from urllib.parse import SplitResult, urlsplit

_SECONDS = 3.0


def is_offline() -> bool:
    """Whether a run is to be recorded offline, where its configuration does not say.

    WANDB_MODE decides where it is set. Otherwise online takes a user who is logged in and a
    server that answers: without one wandb would wait for minutes and then fail.
    """
    mode = os.environ.get("WANDB_MODE")
    # wandb reads the variable itself, but only once a process: "offline" has to be said again to a second run in it.
    return mode in ("offline", "dryrun") if mode else not (is_logged_in() and answers())


def is_logged_in() -> bool:
    """Whether `wandb login` (or WANDB_API_KEY) has left a key; asks neither the user nor the network."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(_server().hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def answers() -> bool:
    """Whether the server, or the proxy before it, accepts a connection."""
    server = _server()
    proxy = urllib.request.getproxies().get(server.scheme)
    if proxy and not urllib.request.proxy_bypass(server.hostname or ""):
        address = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    else:
        address = server
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=_SECONDS).close()
    except OSError:
        return False
    return True


def _server() -> SplitResult:
    return urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
