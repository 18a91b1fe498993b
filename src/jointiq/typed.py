"""Hydra commands (train, evaluate, ...): check what was typed, and turn Hydra's errors into one line."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal import utils as hydra_utils
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jointiq.command_line import override, program
from jointiq.configs import CONFIGS, INSTALLED, compose, option_names
from jointiq.errors import UserError, nearest, one_line_errors

#: Launchers and sweepers that are packages of their own, by the names that Hydra knows them by.
_PLUGINS = {
    "joblib": "joblib-launcher", "ray_aws": "ray-launcher", "rq": "rq-launcher",
    "ax": "ax-sweeper", "nevergrad": "nevergrad-sweeper", "optuna": "optuna-sweeper",
}  # fmt: skip
#: Those that are extras of this one: the module that they take, and the extra.
_EXTRAS = {
    **dict.fromkeys(
        ("slurm", "submitit_local", "submitit_slurm"), ("hydra_plugins.hydra_submitit_launcher", "cluster")
    ),
    "ray": ("ray", "ray"),
}
#: Hydra's settings that do nothing here, and what does.
_ELSEWHERE = {
    "train": {"run.dir": "paths.run_dir=DIR", "sweep.subdir": "paths.results=DIR or paths.run_dir=DIR"},
    "evaluate": {"run.dir": "output=DIR/NAME.json"},
    "anchors": {"run.dir": "output=DIR"},
    "complexity": {"run.dir": "output=OUT.json"},
}
# Stands for a key that a configuration lacks: values may be None.
_ABSENT = object()


def hydra_command(name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Decorator: make a function of a configuration the command that composes conf/NAME.yaml from what is typed."""

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        composed = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=name)(task)

        @functools.wraps(task)
        def main() -> None:
            with one_line_errors():
                if sys.argv[1:3] == ["-sc", "install=bash"]:
                    print(completion())
                    return
                arguments = _parse()
                _check(name, arguments)
                with _raised():
                    try:
                        composed()
                    except HydraException as error:
                        if os.environ.get("HYDRA_FULL_ERROR") == "1":
                            raise
                        raise UserError(in_one_line(name, error, arguments.overrides)) from error

        return main

    return decorate


def _parse() -> Namespace:
    """Return the command line as Hydra reads it; an option that it lacks is refused in one line."""
    parser = hydra_utils.get_args_parser()
    parser.allow_abbrev = False

    def error(message: str) -> NoReturn:
        raise UserError(f"{message}; values are typed as KEY=VALUE, such as +experiment=jointiq; allowed: see --help")

    parser.error = error  # type: ignore[method-assign]
    return parser.parse_args()


@contextlib.contextmanager
def _raised() -> Iterator[None]:
    """Have Hydra raise its errors, which it prints, in many lines, on its own."""
    printing = hydra_utils.run_and_report
    hydra_utils.run_and_report = lambda func: func()
    try:
        yield
    finally:
        hydra_utils.run_and_report = printing


def _check(name: str, typed: Namespace) -> None:
    """Refuse a command line that Hydra answers with a traceback, or does something else with than it says."""
    if typed.help or typed.hydra_help or typed.shell_completion or typed.experimental_rerun:
        return
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return  # a further process of a distributed training: Lightning adds settings to what the first one has checked
    modes = [("-m", typed.multirun), ("--cfg", typed.cfg), ("--info", typed.info), ("--run", typed.run)]
    given = [flag for flag, value in modes if value]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} do not go together; allowed: one of them")
    if typed.resolve and not typed.cfg:
        raise UserError("--resolve goes with --cfg job, which shows the values")
    if typed.multirun and name != "train":
        raise UserError(f"-m is for {program('train')}; {program(name)} takes lists, such as KEY=[A,B]")
    if typed.multirun and not typed.overrides:
        raise UserError("-m alone: no values to sweep over; allowed: -m with a list such as lmbda=0.5,0.23, or no -m")
    sweeps = typed.multirun or any(text.startswith("hydra.mode=") for text in typed.overrides)
    for text in typed.overrides:
        _check_override(name, text, sweeps)


def _check_override(name: str, text: str, sweeps: bool) -> None:
    try:
        parsed = OverridesParser.create().parse_override(text)
        value = parsed.value()
    except HydraException:
        raise UserError(_how_to_quote(text)) from None
    key = parsed.key_or_group
    if parsed.is_sweep_override() and not sweeps:
        given = text.partition("=")[2]
        as_list, as_text = f"{key}=[{given}]", shlex.quote(override(key, given))
        raise UserError(f"{text} is several values; allowed: -m (a run each), {as_list} (a list), or {as_text}")
    if key.startswith("hydra.") and (instead := _ELSEWHERE[name].get(key.removeprefix("hydra."))):
        raise UserError(f"{key}: Hydra writes nothing here; allowed: {instead}")
    if key in ("hydra/launcher", "hydra/sweeper"):
        _check_plugin(f"{key}={value}", str(value))
    if value is None and not parsed.is_delete() and (CONFIGS / key).is_dir():
        raise UserError(f"{text} is no choice; allowed: one of {', '.join(option_names(key))}")


def _check_plugin(typed: str, name: str) -> None:
    """Refuse a launcher or sweeper that is not installed."""
    module, install = None, ""
    if package := _PLUGINS.get(name):
        module, install = f"hydra_plugins.hydra_{package.replace('-', '_')}", f"hydra-{package}"
    elif name in _EXTRAS:
        module, extra = _EXTRAS[name]
        install = f"'jointiq[{extra}]'" if INSTALLED else f"-e '.[{extra}]' -c constraints.txt"
    if module and importlib.util.find_spec(module) is None:
        raise UserError(f"{typed} is not installed; to install it: pip install {install}")


def _how_to_quote(text: str) -> str:
    key, equals, value = text.partition("=")
    if not equals or not key.strip("+~"):
        return f"{text}: no KEY=VALUE"
    return f"{text} is not readable for Hydra; with quotes, as typed in a shell: {shlex.quote(override(key, value))}"


def in_one_line(name: str, error: HydraException, overrides: Sequence[str]) -> str:
    """Return what Hydra says, with the names nearest to a key or option that it does not know."""
    words = str(error).split()
    if words[:2] == ["Could", "not"] and words[2:3] == ["override"] and "defaults" not in words:
        key = words[3].strip("'.")
        others = [_first(text) for text in overrides if text.lstrip("+").partition("=")[0] != key]
        try:
            known = leaves(compose(name, list(filter(None, others))))
        except HydraException:  # another mistake is typed as well
            known = []
        known += dict.fromkeys(one.partition(".")[0] for one in known)
        return f"{key}: no such key{nearest(key, known)}"
    text = re.sub(r"^In '[^']*': ", "", " ".join(words).partition(" Config search path:")[0])
    said, _, options = text.partition(" Available options in ")
    option = said.partition("'")[2].rpartition("'")[0].rpartition("/")[2]
    group, _, names = options.partition(": ")
    about = f" {str(error.__cause__).splitlines()[0]}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
    if not options:
        return f"{said}{about}"
    choices = [one for one in names.split() if not one.startswith("_")]
    return f"{said}{nearest(option, choices)}; allowed: one of {', '.join(choices)}"


def _first(text: str) -> str:
    """Return what is typed for a sweep, ``KEY=A,B``, with the first value; nothing of a ``glob``."""
    parsed = OverridesParser.create().parse_override(text)
    if not parsed.is_sweep_override():
        return text
    if parsed.value_type == ValueType.GLOB_CHOICE_SWEEP:
        return ""
    return f"{text.partition('=')[0]}={next(parsed.sweep_string_iterator())}"


def task_overrides(settings: HydraConf) -> list[str]:
    """Return what is typed for the configuration, but for Hydra's own keys; a ``${...}`` as it stands."""
    return [str(text) for text in OmegaConf.to_container(settings.overrides, resolve=False)["task"]]  # type: ignore


def checked(name: str, cfg: DictConfig) -> DictConfig:
    """Return ``cfg``, the configuration ``name`` of this process, if all that is typed is read and can be resolved.

    Raises:
        UserError: a key that nothing reads, or a ``${...}`` of nothing.
    """
    overrides = task_overrides(HydraConfig.get())
    for key, known in added(name, cfg, overrides).items():
        raise unknown(key, known)
    try:
        for text in overrides:  # the configs themselves have keys that only trainings resolve
            OmegaConf.select(cfg, text.lstrip("+").partition("=")[0])
    except OmegaConfBaseException as error:
        raise UserError(f"the configuration cannot be resolved: {str(error).splitlines()[0]}") from error
    return cfg


def added(name: str, cfg: DictConfig, overrides: Sequence[str]) -> dict[str, list[str]]:
    """Return the keys of ``cfg`` that it has only by ``+KEY=VALUE`` or ``++KEY=VALUE``, each with all keys it has else.

    Keys that the configuration itself reads (``${KEY}``, or a resolver of :mod:`jointiq.configs`) are left out.

    Args:
        name: of the configuration (``train``, ...).
        overrides: what ``cfg`` is composed of. Options of a group that are added (``+experiment=NAME``) bring keys of
            their own.

    Raises:
        UserError: ``~KEY``, but for a callback or logger: everything else is needed.
    """
    parser = OverridesParser.create()
    parsed = [(text, parser.parse_override(text)) for text in overrides]
    for text, one in parsed:
        if one.is_delete() and not one.key_or_group.startswith(("callbacks.", "logger.")):
            raise UserError(f"{text}: this key is needed; allowed: ~callbacks.NAME, ~logger.NAME, or a value")
    plain = [text for text, one in parsed if not (one.is_add() or one.is_force_add()) or _is_choice(one, cfg)]
    if len(plain) == len(parsed):
        return {}
    known = leaves(compose(name, plain))
    text = OmegaConf.to_yaml(cfg)
    return {key: known for key in leaves(cfg) if key not in known and not _is_interpolated(key, text)}


def unknown(key: str, known: Sequence[str]) -> UserError:
    """Return the error for a key that nothing reads."""
    return UserError(f"{key}: nothing reads this key{nearest(key, known)}")


def _is_choice(one: Override, cfg: DictConfig) -> bool:
    """Whether an addition names an option of a group (``+experiment=NAME``), which leaves no such value in ``cfg``."""
    node = OmegaConf.select(cfg, one.key_or_group, default=_ABSENT, throw_on_resolution_failure=False)
    return one.package is None and (node is _ABSENT or (OmegaConf.is_dict(node) and not isinstance(one.value(), dict)))


def leaves(cfg: Any, prefix: str = "") -> list[str]:
    """Return the keys of all values of a configuration, with dots; an empty dictionary is one."""

    def walk(node: Any, prefix: str) -> Iterator[str]:
        if isinstance(node, dict) and (node or not prefix):
            for key, value in node.items():
                yield from walk(value, f"{prefix}.{key}" if prefix else str(key))
        else:
            yield prefix

    return list(walk(OmegaConf.to_container(cfg, resolve=False), prefix))


def _is_interpolated(key: str, text: str) -> bool:
    """Whether the configuration, as YAML, reads ``key`` itself, as the resolvers of :mod:`jointiq.configs` do."""
    group, _, name = key.partition(".")
    readers = [f"${{{key}}}", f"${{scaled:{name},"] if group == "scale" else [f"${{{key}}}"]
    if group in ("scale", "stage"):
        readers.append(f"${{rate_point:{name}}}")
    if group == "stage":
        readers.append(f"${{staged:{name},")
    parents = [f"${{{key[:end]}}}" for end, sign in enumerate(key) if sign == "."]
    return any(reader in text for reader in (*readers, *parents))


def completion() -> str:
    """Return the script for bash that completes keys, groups and their options."""
    commands = sorted(path.stem for path in (Path(__file__).parent / "commands").glob("[!_]*.py"))
    return _COMPLETION.replace("COMMANDS", " ".join(commands))


# Hydra's own knows `python FILE`, but neither `python -m MODULE` nor commands within a command; it answers the query.
_COMPLETION = r"""_jointiq_complete() {
    local words=(${COMP_LINE:0:COMP_POINT}) word="${COMP_WORDS[COMP_CWORD]}" count=2 name choices
    if [[ ${words[0]##*/} == python* ]]; then
        [[ ${words[1]} == -m ]] || return
        count=3
    fi
    if [[ $COMP_CWORD -lt $count ]]; then
        local prefix=""
        [[ $count == 3 ]] && prefix="src."
        COMPREPLY=($(compgen -P "$prefix" -W "COMMANDS" -- "${word#"$prefix"}"))
        return
    fi
    name="${words[count-1]#src.}"
    case "$name" in train|evaluate|anchors|complexity) ;; *) return ;; esac
    choices=$(COMP_LINE="$name ${words[*]:count}" "${words[@]:0:count}" -sc query=bash 2>/dev/null)
    choices=$(tr ' ' '\n' <<< "$choices" | grep -v '[=/]_')
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _jointiq_complete python python3 jointiq"""
