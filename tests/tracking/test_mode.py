"""W&B goes online only for a user who is logged in, to a server that answers; it never waits."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jointiq.tracking.mode import is_logged_in, is_offline


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def server() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_nobody_is_offline(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server)
    assert not is_logged_in() and is_offline()


def test_a_key_in_netrc_counts_for_its_server(monkeypatch: pytest.MonkeyPatch, server: str, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password key\n")
    (tmp_path / "netrc").chmod(0o600)
    assert is_logged_in() and not is_offline()
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.2")
    assert not is_logged_in()


def test_a_server_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", closed_port())
    start = time.monotonic()
    assert is_logged_in() and is_offline()
    assert time.monotonic() - start < 10


def test_behind_a_proxy_the_proxy_has_to_answer(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.invalid")
    assert is_offline()
    monkeypatch.setenv("http_proxy", server)
    assert not is_offline()


def test_what_the_user_sets_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    assert not is_offline()
    for mode, offline in (("offline", True), ("dryrun", True), ("disabled", False)):
        monkeypatch.setenv("WANDB_MODE", mode)
        assert is_offline() is offline
