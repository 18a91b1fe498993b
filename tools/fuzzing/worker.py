"""A worker process that makes files and has the project read them, under limits of time and memory."""

from __future__ import annotations

import importlib
import multiprocessing
import resource
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from jointiq.errors import UserError

# For one file, in seconds (a valid one takes a second at most) and bytes beyond what the loaded worker holds.
TIME_LIMIT = 60.0
MEMORY_LIMIT = 2 << 30

#: Outcomes of a file that are no failure.
CLEAN = ("error", "right")


@dataclass(frozen=True)
class Case:
    """A file to be read.

    Attributes:
        name: of the file.
        data: its bytes.
        aim: what else its target has to know of it.
    """

    name: str
    data: bytes
    aim: Any = None


class Target(Protocol):
    """A part of the project that reads files."""

    def case(self, rng: np.random.Generator) -> Case:
        """Make a file."""

    def check(self, case: Case) -> None:
        """Have the file read, and check what comes of it.

        Raises:
            UserError: it cannot be read, which is a clean end.
            Exception: any other is a failure.
        """


def make(target: Target, seed: int, index: int) -> Case:
    """Return file number ``index`` of ``seed``."""
    return target.case(np.random.default_rng((seed, index)))


def outcome(target: Target, case: Case) -> str:
    """Return one of ``CLEAN``, or the failure in words."""
    try:
        target.check(case)
    except UserError:
        return "error"
    except (Exception, SystemExit) as error:  # noqa: BLE001  (anything else is what is looked for)
        return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
    return "right"


def load(what: str, folder: Path) -> Target:
    """Return the target ``what``; it may write into ``folder``."""
    target: Target = importlib.import_module(f"tools.fuzzing.{what}").target(folder)
    return target


def work(connection: Connection, what: str, folder: Path) -> None:
    """Run the worker: for each seed and number send the file, and then what has come of it."""
    torch.set_num_threads(1)
    target = load(what, folder)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while True:
        case = make(target, *connection.recv())
        connection.send(case)
        connection.send(outcome(target, case))


class Worker:
    """A worker process for one target."""

    def __init__(self, what: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, what, Path(self._folder.name))
        self._process = context.Process(target=work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def run(self, seed: int, index: int) -> tuple[Case, str]:
        """Make a file and read it; return it with one of ``CLEAN``, or the failure in words."""
        case = Case("none", b"")
        try:
            self._connection.send((seed, index))
            case = self._connection.recv()
            if not self._connection.poll(TIME_LIMIT):
                return case, f"hang: no answer in {TIME_LIMIT:.0f} s"
            return case, self._connection.recv()
        except (EOFError, OSError):
            self._process.join(5)
            return case, f"crash: exit code {self._process.exitcode}"

    def stop(self) -> None:
        """End the process, whatever state it is in."""
        self._process.kill()
        self._process.join()
        self._connection.close()
        self._folder.cleanup()


def fuzz(what: str, count: int, seed: int) -> Iterator[tuple[int, Case, str]]:
    """Read ``count`` files; yield number, file and outcome of each."""
    worker = Worker(what)
    try:
        for index in range(count):
            case, outcome = worker.run(seed, index)
            yield index, case, outcome
            if outcome.startswith(("hang", "crash")):
                worker.stop()
                worker = Worker(what)
    finally:
        worker.stop()
