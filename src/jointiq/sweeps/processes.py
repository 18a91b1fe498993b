"""Start ``src.train`` as a child process that does not outlive its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

from jointiq.command_line import TRAIN
from jointiq.errors import EXIT_TERMINATED

#: Environment variable with the id of the process that this one ends with.
PARENT = "JOINTIQPARENT_PID"
_PR_SET_PDEATHSIG = 1


def start_process(
    overrides: Sequence[str],
    folders: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    output: IO[str] | None = None,
    command: Sequence[str] = TRAIN,
) -> subprocess.Popen[bytes]:
    """Start a training with ``overrides``.

    Args:
        folders: further config folders.
        environment: all environment variables of the process; None: those of this one.
        output: file for its output and errors; None: those of this process.
        command: what is started, with the folders and overrides as arguments.
    """
    variables = {**(os.environ if environment is None else environment), PARENT: str(os.getpid())}
    errors = None if output is None else subprocess.STDOUT
    return subprocess.Popen(words_of(overrides, folders, command), env=variables, stdout=output, stderr=errors)


def words_of(overrides: Sequence[str], folders: Sequence[str] = (), command: Sequence[str] = TRAIN) -> list[str]:
    """Return the command line of a training; see :func:`start_process`."""
    return [*command, *(word for folder in folders for word in ("--config-dir", folder)), *overrides]


def run_process(
    overrides: Sequence[str], folders: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> int:
    """Train with ``overrides`` and return the exit code; see :func:`start_process`.

    Ctrl-C and SIGTERM reach the process as well, and this call waits while it saves.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    process = start_process(overrides, folders, environment)
    with PassOnSigterm([process]):
        try:
            return exit_code(process.wait())
        except KeyboardInterrupt:
            process.wait()
            raise


def exit_code(code: int) -> int:
    """Return the shell's form of a process's exit code: 128 + signal where a signal ended it."""
    return code if code >= 0 else 128 - code


class PassOnSigterm:
    """Pass SIGTERM on to ``processes`` while this context lasts, and note it in ``received``."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]] = ()) -> None:
        self.processes = processes
        #: True once SIGTERM has come.
        self.received = False
        self._previous: Any = None

    def __enter__(self) -> PassOnSigterm:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._pass_on)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def watch(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        """Pass SIGTERM on to these processes from now on; if it has come already, new ones get it now."""
        started = [process for process in processes if process not in self.processes]
        self.processes = processes
        if self.received:
            for process in started:
                process.terminate()

    def _pass_on(self, number: int, frame: object) -> None:
        self.received = True
        for process in self.processes:
            process.terminate()


def end_with_parent() -> None:
    """End this process when the one that started it ends (Linux only; elsewhere nothing happens).

    A job whose sweep is killed gets SIGTERM, so that it saves and ends. The further processes of a distributed run are
    killed with the first one, for which they would wait for ever.
    """
    parent, number = os.environ.pop(PARENT, None), signal.SIGTERM
    if os.environ.get("LOCAL_RANK", "0") != "0":
        parent, number = str(os.getppid()), signal.SIGKILL
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if str(os.getppid()) != parent:  # the parent ended before this process could ask for the signal
        sys.exit(EXIT_TERMINATED)
