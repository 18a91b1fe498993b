"""Run jobs of a sweep on a Ray cluster: one started on this machine, or one that runs already."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from jointiq.command_line import TRAIN
from jointiq.errors import ConfigError, UserError
from jointiq.runs.job_notes import JOBS, note_job
from jointiq.sweeps.jobs import Job, JobResult, clear_notes, last_words
from jointiq.sweeps.processes import PARENT, PassOnSigterm, exit_code, words_of
from jointiq.sweeps.resources import cores_of_a_process, uses_gpus

_POLL_SECONDS = 1.0
_ANSWER_SECONDS = 10.0
#: Exit code of a job whose machine or process was lost.
_LOST = 1
#: Environment variables that each machine sets itself.
_OF_THE_MACHINE = ("CUDA_VISIBLE_DEVICES",)


def run_on_ray(
    jobs: Sequence[Job],
    address: str | None = None,
    cpus: int | None = None,
    folders: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    record: Path = Path(),
    first: int = 0,
    command: Sequence[str] = TRAIN,
) -> list[JobResult]:
    """Run ``jobs`` on a cluster, each in a process of its own, and wait for all of them.

    Ray runs as many at a time as the machines have cores and GPUs for; a job takes ``trainer.devices`` GPUs, if it uses
    any. Jobs run in this process's working directory with its environment variables and its Python, which all machines
    must have at the same path. Finished jobs are skipped. A job that fails does not stop the others.

    Args:
        address: ``HOST:PORT`` of the cluster, or "auto" for one that runs on this machine; None starts one here.
        cpus: cores of each job; None: those that it can use (:func:`jointiq.sweeps.resources.cores_of_a_process`).
        folders, environment, first, command: see :func:`jointiq.sweeps.jobs.run_jobs`.
        record: the sweep's folder, for ``jobs/NUMBER.json`` and what the jobs print, ``jobs/NUMBER.log``.

    Returns:
        One result for each job, in the order of ``jobs``. After SIGTERM the started jobs have saved and ended, and the
        others have the code None.

    Raises:
        UserError: no cluster at ``address``, or a job that needs more than a machine of it has.
        KeyboardInterrupt: Ctrl-C, after the started jobs have saved.
    """
    if first == 0:
        clear_notes(record, [job.overrides for job in jobs])
    given = {**(environment or {}), **os.environ}
    with _connected(address) as ray:
        start = _remote(ray)
        sizes = [_size(job.cfg, cpus, ray.nodes()) for job in jobs]  # a job that fits nowhere would wait for ever
        results: dict[int, JobResult] = {}
        running: dict[Any, int] = {}
        logs = [(record / JOBS / f"{number}.log").absolute() for number in range(first, first + len(jobs))]
        printed = [log.stat().st_size if log.is_file() else 0 for log in logs]

        def say(number: int, text: str) -> None:
            print(f"[{first + number + 1}/{first + len(jobs)}] {text}", flush=True)

        def note(number: int, code: int | None, message: str = "") -> None:
            note_job(record, first + number, jobs[number].overrides, jobs[number].folder, code, message)

        for number, (job, (cores, gpus)) in enumerate(zip(jobs, sizes, strict=True)):
            if job.is_finished():
                say(number, "finished before, skipped")
                note(number, 0)
                results[number] = JobResult(job, 0, skipped=True)
                continue
            say(number, shlex.join(job.overrides))
            note(number, None)
            words = words_of(job.overrides, folders, command)
            variables = {"OMP_NUM_THREADS": str(cores), **given}
            started = start.options(num_cpus=cores, num_gpus=gpus).remote(
                words, os.getcwd(), variables, str(logs[number])
            )
            running[started] = number
        with PassOnSigterm() as sigterm:
            stopping = False
            while running:
                try:
                    ended, _ = ray.wait(list(running), timeout=_POLL_SECONDS)
                    if sigterm.received and not stopping:
                        stopping = True
                        _stop(ray, running)
                except KeyboardInterrupt:
                    _stop(ray, running)
                    ray.wait(list(running), num_returns=len(running))
                    raise
                for job_there in ended:
                    number = running.pop(job_there)
                    result = JobResult(jobs[number], _code(ray, job_there))
                    if result.failed and logs[number].is_file():
                        said = logs[number].read_bytes()[printed[number] :].decode(errors="replace")
                        result = replace(result, message=last_words(said))
                    results[number] = result
                    note(number, result.code, result.message)
                    if result.code is not None:
                        why = f": {result.message}" if result.message else ""
                        say(number, "done" if result.code == 0 else f"ended with exit code {result.code}{why}")
    return [results[number] for number in range(len(jobs))]


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    import ray  # late: an extra of its own

    try:
        if address is not None:
            _reach(address)
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # a plain one where its processes do not start in time
        reason = " ".join(str(error).split())
        if not isinstance(error, OSError | ValueError | ray.exceptions.AuthenticationError):
            raise UserError(
                f"Ray did not start; its logs are in /tmp/ray or $RAY_TMPDIR; try again ({reason})"
            ) from error
        allowed = f"HOST:PORT of a cluster's head, or auto where `ray start` was typed on this machine ({reason})"
        raise ConfigError("hydra.launcher.address", address, allowed) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Check that a cluster's head answers; Ray itself tries for a quarter of an hour.

    Raises:
        OSError: it does not answer.
        ValueError: not an address.
    """
    from ray._private.services import canonicalize_bootstrap_address_or_die

    host, _, port = canonicalize_bootstrap_address_or_die(address).rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS):
        pass


def _remote(ray: Any) -> Any:
    """Return the function that runs a job; Ray sends its code, so that workers need not find this package."""
    parent, of_the_machine = PARENT, _OF_THE_MACHINE

    @ray.remote(max_retries=0)
    def run(words: list[str], folder: str, variables: dict[str, str], log: str) -> int:
        import os
        import subprocess
        import time

        own = {name: os.environ[name] for name in of_the_machine if name in os.environ}
        environment = {**variables, **own, parent: str(os.getpid())}
        with open(log, "a") as output:
            process = subprocess.Popen(words, cwd=folder, env=environment, stdout=output, stderr=output)
        try:
            while process.poll() is None:
                time.sleep(0.2)  # and not wait(), which the interrupt of `ray.cancel` does not reach
        except KeyboardInterrupt:
            process.terminate()
        return process.wait()

    return run


def _size(cfg: DictConfig, cpus: int | None, machines: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return the cores and GPUs of a job, limited to those of the largest of ``machines``.

    Raises:
        ConfigError: no machine has as many as were asked for.
    """
    there = [machine["Resources"] for machine in machines if machine["Alive"]]
    most_gpus = int(max(one.get("GPU", 0) for one in there))
    devices = cfg.trainer.devices if isinstance(cfg.trainer.devices, int) else 1
    gpus = devices if uses_gpus(cfg) and most_gpus else 0
    if gpus > most_gpus:
        raise ConfigError("trainer.devices", devices, f"1 to {most_gpus}, the GPUs of a machine of the cluster")
    most_cores = int(max(one.get("CPU", 0) for one in there if one.get("GPU", 0) >= gpus))
    if cpus is not None and not 0 < cpus <= most_cores:
        raise ConfigError("hydra.launcher.cpus", cpus, f"null, or 1 to {most_cores}, the cores of a machine")
    wanted = cores_of_a_process(cfg, on_gpu=gpus > 0)
    return cpus or max(1, most_cores if wanted is None else min(wanted * devices, most_cores)), gpus


def _stop(ray: Any, running: Mapping[Any, int]) -> None:
    """Tell all jobs to save and end; those that have not begun are cancelled."""
    for job in running:
        ray.cancel(job)


def _code(ray: Any, job: Any) -> int | None:
    """Return the exit code of a job that has ended; None: it was not started."""
    try:
        return exit_code(ray.get(job))
    except ray.exceptions.TaskCancelledError:
        return None
    except ray.exceptions.RayError as error:
        said = " ".join(str(error).split())
        print(f"error: a job was lost: {said}; the same command tries it again", file=sys.stderr, flush=True)
        return _LOST
