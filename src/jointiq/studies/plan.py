"""Read and check a study, ``experiments/NAME/study.yaml``; docs/studies.md explains every key."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from jointiq.configs import EXPERIMENTS
from jointiq.errors import ConfigError, UserError, check_whole

#: Machine-readable results of a study, in ``results/SCALE`` of its folder.
RESULTS = "results.json"
FILE = "study.yaml"
#: The scale that only shows that a study runs; its numbers are not kept.
DEMO = "demo"
SCALES = ("paper", "gpu", "pilot", DEMO)
#: Images that a scale is measured on: the validation images, or the test sets.
SETS = ("val", "test")
#: Files that are decoded: all of them, or one of each model and set (where only the bits matter).
DECODE = ("all", "one")
#: What the number of a value counts: bits that are added, or bits that are saved.
SENSES = ("more", "less")

_STUDY_KEYS = {"title", "source", "shows", "scales"}
#: Keys of a scale; given at the top level they are the default for all scales.
_SCALE_KEYS = {"note", "settings", "lmbda", "seeds", "runs", "measure", "decode", "values", "analyses"}
_RUN_KEYS = {"label", "overrides", "lmbda", "seeds", "init_from", "measure"}
#: Of a run that is a model of ``weights/``.
_SHIPPED_KEYS = {"label", "shipped", "measure", "qualities", "refine"}


@dataclass(frozen=True)
class Value:
    """A number or statement of the paper, with which ours is compared.

    Attributes:
        name: name of its row.
        paper: the paper's number, or its statement in words.
        unit: of the number.
        details: keys that tell the analysis how to find our number, such as ``test`` and ``anchor``.
    """

    name: str
    paper: float | str
    unit: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sense(self) -> str:
        """See :data:`SENSES`; the first is the default."""
        return str(self.details.get("sense", SENSES[0]))


@dataclass(frozen=True)
class Run:
    """Trainings of one system: one for each lambda and seed; or a model that comes with the project.

    Attributes:
        name: its name in the study.
        label: its name in tables and plots.
        overrides: arguments of ``python -m src.train``, without lambda, seed and data.
        lmbda, seeds: of the trainings; one zero for a shipped model.
        init_from: the run from whose model of the same lambda (and of its first seed) this one starts; None: none.
        measure: whether the study's images are coded with it.
        shipped: name of a model of ``weights/``, which is not trained; None: a run that is.
        qualities: at which a shipped model is measured; None: eight from 1 to 100.
        refine: steps in which the latents of a shipped model are refined for every image.
    """

    name: str
    label: str
    overrides: tuple[str, ...]
    lmbda: tuple[float, ...]
    seeds: tuple[int, ...]
    init_from: str | None = None
    measure: bool = True
    shipped: str | None = None
    qualities: tuple[float, ...] | None = None
    refine: int = 0


@dataclass(frozen=True)
class Scale:
    """A study at one size.

    Attributes:
        note: what a reader of its numbers must know.
        runs: each after the one that it starts from.
        measure: the images that are coded (:data:`SETS`); empty: none.
        decode: see :data:`DECODE`.
        values: of the paper, with which ours are compared.
        analyses: name and options of each.
    """

    name: str
    note: str
    runs: tuple[Run, ...]
    measure: tuple[str, ...]
    decode: str
    values: tuple[Value, ...]
    analyses: tuple[tuple[str, Mapping[str, Any]], ...]

    @property
    def trains(self) -> bool:
        """Whether any of its runs is trained."""
        return any(run.shipped is None for run in self.runs)


@dataclass(frozen=True)
class Study:
    """One table or figure of a paper."""

    name: str
    folder: Path
    title: str
    source: str
    shows: str
    scales: Mapping[str, Scale]

    def at(self, scale: str) -> Scale:
        """Return the study at ``scale``.

        Raises:
            ConfigError: the study has no such scale.
        """
        if scale not in self.scales:
            raise ConfigError("--scale", scale, self.scales)
        return self.scales[scale]


def study_names(experiments: Path = EXPERIMENTS) -> list[str]:
    """Return the names of all studies."""
    return sorted(path.parent.name for path in experiments.glob(f"*/{FILE}"))


def read_study(name: str, experiments: Path = EXPERIMENTS) -> Study:
    """Return the study ``experiments/NAME``.

    Raises:
        ConfigError: there is none of this name, or a key or value in its file is not allowed.
        UserError: the file is not YAML.
    """
    path = experiments / name / FILE
    if name not in study_names(experiments):
        raise ConfigError("NAME", name, study_names(experiments))
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error
    _check_keys(name, document, _STUDY_KEYS | _SCALE_KEYS, {"title", "source", "shows", "scales"})
    shared = {key: document[key] for key in _SCALE_KEYS & document.keys()}
    scales = {}
    for scale, own in document["scales"].items():
        if scale not in SCALES:
            raise ConfigError(f"{name}.scales", scale, SCALES)
        where = f"{name}.scales.{scale}"
        _check_keys(where, own, _SCALE_KEYS)
        scales[scale] = _scale(scale, where, {**shared, **own})
    return Study(
        name=name,
        folder=path.parent,
        title=document["title"],
        source=document["source"],
        shows=" ".join(document["shows"].split()),
        scales=scales,
    )


def _value(where: str, value: Any) -> Value:
    _check_keys(where, value, None, {"name", "paper"})
    details = {key: item for key, item in value.items() if key not in ("name", "paper", "unit")}
    read = Value(str(value["name"]), value["paper"], str(value.get("unit", "")), details)
    if read.sense not in SENSES:
        raise ConfigError(f"{where}.sense", read.sense, SENSES)
    return read


def _scale(name: str, where: str, keys: Mapping[str, Any]) -> Scale:
    measure = tuple(keys.get("measure", ("test",)))
    for one in measure:
        if one not in SETS:
            raise ConfigError(f"{where}.measure", one, SETS)
    decode = keys.get("decode", "all")
    if decode not in DECODE:
        raise ConfigError(f"{where}.decode", decode, DECODE)
    analyses = keys.get("analyses", {})
    if not isinstance(analyses, Mapping) or not analyses:
        raise ConfigError(f"{where}.analyses", analyses, "analyses by name, with their options")
    declared: dict[str, Run] = {}
    for run_name, run in (keys.get("runs") or {}).items():
        declared[run_name] = _run(run_name, f"{where}.runs.{run_name}", run, keys, declared)
    return Scale(
        name=name,
        note=" ".join(str(keys.get("note", "")).split()),
        runs=tuple(declared.values()),
        measure=measure,
        decode=decode,
        values=tuple(_value(f"{where}.values[{i}]", value) for i, value in enumerate(keys.get("values") or ())),
        analyses=tuple((key, options or {}) for key, options in analyses.items()),
    )


def _run(name: str, where: str, run: Any, keys: Mapping[str, Any], earlier: Mapping[str, Run]) -> Run:
    if isinstance(run, Mapping) and "shipped" in run:
        _check_keys(where, run, _SHIPPED_KEYS)
        model, label = str(run["shipped"]), str(run.get("label", name))
        qualities = _numbers(f"{where}.qualities", run["qualities"], float) if "qualities" in run else None
        refine = run.get("refine", 0)
        check_whole(f"{where}.refine", refine, 0)
        return Run(name, label, (), (0.0,), (0,), None, bool(run.get("measure", True)), model, qualities, refine)
    _check_keys(where, run, _RUN_KEYS, {"overrides"})
    lmbda = _numbers(f"{where}.lmbda", run.get("lmbda", keys.get("lmbda")), float)
    seeds = _numbers(f"{where}.seeds", run.get("seeds", keys.get("seeds", [0])), int)
    source = run.get("init_from")
    if source is not None:
        if source not in earlier:
            raise ConfigError(f"{where}.init_from", source, "a run above it")
        missing = sorted(set(lmbda) - set(earlier[source].lmbda))
        if missing:
            raise ConfigError(f"{where}.lmbda", missing[0], f"lambdas of {source}, which it starts from")
    overrides = (*run["overrides"], *keys.get("settings", ()))
    return Run(name, str(run.get("label", name)), overrides, lmbda, seeds, source, bool(run.get("measure", True)))


def _numbers(where: str, values: Any, kind: type) -> tuple[Any, ...]:
    wrong = not isinstance(values, Sequence) or isinstance(values, str) or not values or len(set(values)) < len(values)
    if wrong or not all(isinstance(value, int | kind) and not isinstance(value, bool) for value in values):
        raise ConfigError(where, values, "a list of different numbers" if kind is float else "a list of whole numbers")
    return tuple(kind(value) for value in values)


def _check_keys(where: str, given: Any, allowed: set[str] | None, needed: Collection[str] = ()) -> None:
    if not isinstance(given, Mapping):
        raise ConfigError(where, given, "keys with values")
    for key in given:
        if allowed is not None and key not in allowed:
            raise ConfigError(where, key, sorted(allowed))
    for key in sorted(set(needed) - given.keys()):
        raise ConfigError(f"{where}.{key}", None, "a value")
