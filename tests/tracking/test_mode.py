"""W&B goes online only for a user who is logged in, and asks nobody; each login in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jointiq.tracking.mode import is_offline

SERVER = "http://127.0.0.1"
QUESTION = "from jointiq.tracking.mode import is_logged_in, is_offline; print(is_logged_in(), is_offline())"


def asked(folder: Path, **environment: str) -> tuple[bool, bool]:
    """What :func:`is_logged_in` and :func:`is_offline` say, in a process with these variables."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    # Silent, W&B does not ask the server for the user's name to greet him.
    settings = {"NETRC": str(folder / "netrc"), "HOME": str(folder), "WANDB_BASE_URL": SERVER, "WANDB_SILENT": "true"}
    settings |= environment
    command = [sys.executable, "-c", QUESTION]
    done = subprocess.run(command, env={**kept, **settings}, capture_output=True, text=True, timeout=60, check=True)
    logged_in, offline = (word == "True" for word in done.stdout.split())
    return logged_in, offline


def test_nobody_is_offline(tmp_path: Path) -> None:
    assert asked(tmp_path) == (False, True)


def test_a_key_in_netrc_counts_for_its_server(tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login user password {'k' * 40}\n")
    (tmp_path / "netrc").chmod(0o600)
    assert asked(tmp_path) == (True, False)
    assert asked(tmp_path, WANDB_BASE_URL="http://127.0.0.2") == (False, True)


def test_a_key_in_the_environment_counts(tmp_path: Path) -> None:
    assert asked(tmp_path, WANDB_API_KEY="k" * 40) == (True, False)


MODES = [("online", False), ("offline", True), ("dryrun", True), ("disabled", False)]


@pytest.mark.parametrize(("mode", "offline"), MODES)
def test_what_the_user_sets_wins(monkeypatch: pytest.MonkeyPatch, mode: str, offline: bool) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    assert is_offline() == offline
    assert is_offline(offline=False) is False and is_offline(offline=True) is True
