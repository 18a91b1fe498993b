"""Check the values of a composed training config, before anything is built or written.

Hydra has refused unknown keys and options by then. Two checks are left to others: a model's own settings to
:func:`jointiq.models.build_model`, and image files to the data module.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import math
import pkgutil
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from jointiq.configs import DISTORTIONS, RATE_UNITS, option_names, rate_rows
from jointiq.data import LATENT, data_set_names
from jointiq.errors import ConfigError, UserError, check_whole
from jointiq.training.schedules import SCHEDULES
from jointiq.typed import added, unknown

#: Values of ``init_from`` that name no file: principal components (:mod:`jointiq.training.start.pca`), and the same
#: where the model allows it.
PCA, AUTO = "pca", "auto"
NO_FILE = (None, PCA, AUTO)

#: The value of ``distortion.rate_positions`` that counts the rate of every position.
ALL_POSITIONS = "all"

#: Values of ``optim.compile``: no, yes, and the mode of ``torch.compile`` that replays CUDA graphs.
COMPILE_MODES = (False, True, "reduce-overhead")

#: Smallest side of a training patch: the four halvings of MS-SSIM, and of g_a, leave one pixel.
MIN_SIDE = 16

#: Keys that a row of the rate table fills, unless the scale or the user does.
RATE_POINT_KEYS = ("model.N", "model.M", "model.M1", "model.M2", "trainer.max_steps", "optim.lr")

#: Arithmetic of trainings, as Lightning names it.
PRECISIONS = ("32-true", "bf16-mixed")

#: Smallest patch with the global context: in smaller ones (next to) no position has enough known ones to learn from.
MIN_CROP_GLOBAL_CONTEXT = 128

#: Up to this many optimizer steps, training on the sample photographs is a trial.
_TRIAL_STEPS = 10_000

#: The groups of conf/ that every training reads. (`entropy_model` fills `model`.)
_GROUPS = (
    "paths", "rates", "scale", "model", "enhancer", "stage", "distortion", "optim", "data", "trainer", "callbacks",
    "logger",
)  # fmt: skip

#: Longest tag that W&B takes, in characters.
_TAG = 64

#: The class that takes the arguments in ``trainer``.
_TRAINER = "lightning.pytorch.trainer.trainer.Trainer"


def refuse_unread(name: str, cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse keys added with ``+`` that nothing reads.

    Allowed are the arguments of Lightning's trainer and of the callbacks and loggers. Keys of ``optim``, ``model`` and
    ``enhancer`` are checked where the optimizer and the model are built.

    Args:
        name: of the root config: ``train``, or ``complexity``, which includes it.
        overrides: from which ``cfg`` was composed.

    Raises:
        UserError: names the key and those nearest to it.
    """
    for key, known in added(name, cfg, overrides).items():
        group, _, rest = key.partition(".")
        if group in ("optim", "model", "enhancer") and rest:
            continue
        taken: list[str] | None = []
        if group == "trainer":
            taken = _arguments(_TRAINER, "trainer")
        elif group in ("callbacks", "logger") and rest:
            owner, _, rest = rest.partition(".")
            target = OmegaConf.select(cfg, f"{group}.{owner}._target_")
            if target is None:
                raise ConfigError(
                    f"{group}.{owner}._target_", None, f"a class: +{group}.{owner}._target_=package.Class"
                )
            taken = _arguments(str(target), f"{group}.{owner}._target_")
            group = f"{group}.{owner}"
        argument = rest.partition(".")[0]
        if taken is None or argument in taken or (group.count(".") and argument.startswith("_")):
            continue
        raise unknown(key, [*known, *(f"{group}.{one}" for one in taken)])


def _arguments(target: str, key: str) -> list[str] | None:
    """Return the names of the arguments of the class (or function) ``target``; None: it takes any.

    Raises:
        ConfigError: ``target``, the value of ``key``, cannot be imported.
    """
    written = _arguments_in_source(target)
    if written is not None:
        return written
    try:
        made = pkgutil.resolve_name(target)
        parameters = inspect.signature(made).parameters.values()
    except Exception as error:  # whatever the user's own module raises
        raise ConfigError(key, target, f"a class that can be imported ({error})") from error
    if any(one.kind == inspect.Parameter.VAR_KEYWORD for one in parameters):
        return None
    return [one.name for one in parameters]


def _arguments_in_source(target: str) -> list[str] | None:
    """Return the arguments from the class's source, as importing its module takes seconds; None: unknown."""
    module, _, name = target.rpartition(".")
    package, *parts = module.split(".")
    try:
        spec = importlib.util.find_spec(package)
        (folder,) = list(spec.submodule_search_locations or []) if spec is not None else []
        tree = ast.parse(Path(folder, *parts).with_suffix(".py").read_text(encoding="utf-8"))
    except (ValueError, OSError, SyntaxError):
        return None
    for cls in tree.body:
        if isinstance(cls, ast.ClassDef) and cls.name == name:
            for made in cls.body:
                if isinstance(made, ast.FunctionDef) and made.name == "__init__" and made.args.kwarg is None:
                    return [one.arg for one in (*made.args.args[1:], *made.args.kwonlyargs)]
    return None


def validate(cfg: DictConfig) -> None:
    """Check every value of a composed ``train`` config.

    Raises:
        ConfigError: a value that is not allowed; its message names the key and what is allowed.
        UserError: an interpolation that cannot be resolved.
    """
    for group in _GROUPS:
        if not OmegaConf.is_dict(cfg.get(group)):
            raise ConfigError(group, cfg.get(group), option_names(group))
    _check_name(cfg, "experiment_name")
    _check_number(cfg, "lmbda", lambda value: 0 < value < 1, "a number between 0 and 1, both excluded")
    _check_rate_point(cfg)
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"the configuration cannot be resolved: {str(error).splitlines()[0]}") from error

    _check_tags(cfg)
    metric = OmegaConf.select(cfg, "optimized_metric", default="val/loss")
    if not str(metric).startswith("val/"):
        raise ConfigError("optimized_metric", metric, "what a validation logs: val/loss, val/bpp, val/psnr, ...")
    _check_whole(cfg, "seed", 0, 2**32 - 1)
    _check_choice(cfg, "test", (True, False))
    if cfg.get("threads") is not None:
        _check_whole(cfg, "threads", 1)
    _check_whole(cfg, "trainer.max_steps", 1)
    _check_whole(cfg, "trainer.val_check_interval", 1)
    _check_whole(cfg, "trainer.log_every_n_steps", 1)
    _check_whole(cfg, "trainer.devices", 1)
    _check_whole(cfg, "trainer.num_nodes", 1)
    if cfg.trainer.get("accumulate_grad_batches", 1) != 1:
        allowed = "1; data.batch_size counts all patches of an optimizer step"
        raise ConfigError("trainer.accumulate_grad_batches", cfg.trainer.accumulate_grad_batches, allowed)
    if cfg.trainer.get("gradient_clip_val") is not None:
        raise ConfigError("trainer.gradient_clip_val", cfg.trainer.gradient_clip_val, "null; optim.clip_norm clips")
    # With scaled gradients (16-mixed) optim.clip_norm would clip something else.
    _check_choice(cfg, "trainer.precision", PRECISIONS)
    _check_choice(cfg, "trainer.benchmark", (True, False, None))
    _check_choice(cfg, "tf32", (True, False))
    _check_max_time(cfg)
    _check_optimizer(cfg)
    _check_choice(cfg, "distortion.name", DISTORTIONS)
    _check_choice(cfg, "distortion.rate_unit", RATE_UNITS)
    _check_rate_positions(cfg)
    _check_all_rates(cfg)
    _check_data(cfg)
    _check_stage(cfg)


def refuse_missing_package(cfg: DictConfig) -> None:
    """Refuse a logger whose package is not installed.

    Raises:
        UserError: ``logger=tensorboard`` without TensorBoard.
    """
    targets = [str(OmegaConf.select(cfg.logger, f"{name}._target_")) for name in cfg.logger]
    installed = any(importlib.util.find_spec(package) for package in ("tensorboard", "tensorboardX"))
    if not installed and any(target.endswith(".TensorBoardLogger") for target in targets):
        raise UserError("logger=tensorboard needs a package that is not installed: pip install tensorboard")


def refuse_long_trial(cfg: DictConfig) -> None:
    """Refuse to train for days on the handful of sample photographs, which is what a bare command asks for.

    Raises:
        UserError: ``scale=paper`` on ``data=sample`` without a time cap, few steps or ``data.at_paper_scale``.
    """
    short = cfg.trainer.max_time is not None or cfg.trainer.max_steps <= _TRIAL_STEPS
    if cfg.scale.name == "paper" and cfg.data.name == "sample" and not short and not cfg.data.get("at_paper_scale"):
        raise UserError(
            f"scale=paper with data=sample is {cfg.trainer.max_steps} steps on a handful of photographs; allowed: "
            "scale=demo (a trial of minutes), data=folder data.train_dir=DIR data.val_dir=DIR (your images), or "
            "data.at_paper_scale=true (all the same)"
        )


def _check_rate_point(cfg: DictConfig) -> None:
    missing = []
    for key in RATE_POINT_KEYS:
        try:
            OmegaConf.select(cfg, key)
        except InterpolationResolutionError:
            missing.append(key)
    if missing:
        table = ", ".join(f"{row.lmbda:g}" for row in rate_rows(cfg))
        keys = " ".join(f"{key}=.." for key in missing)
        raise ConfigError("lmbda", cfg.lmbda, f"a rate point of the table ({table}), or any other together with {keys}")


def _check_rate_positions(cfg: DictConfig) -> None:
    value = cfg.distortion.rate_positions
    if value != ALL_POSITIONS and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigError("distortion.rate_positions", value, f"{ALL_POSITIONS}, or a whole number from 1 up")


def _check_all_rates(cfg: DictConfig) -> None:
    ends = cfg.distortion.lmbda_range
    numbers = [end for end in ends if isinstance(end, float) and 0 < end < 1] if OmegaConf.is_list(ends) else []
    if len(numbers) != 2 or len(ends) != 2 or numbers[0] <= numbers[1]:
        raise ConfigError("distortion.lmbda_range", ends, "two numbers between 0 and 1, the larger first: [0.6,0.008]")
    _check_number(cfg, "distortion.balance", lambda value: 0 <= value <= 1, "a number from 0 to 1")
    if cfg.model.get("rates") == "continuous" and cfg.stage.trains == "entropy":
        raise ConfigError("model.rates", "continuous", f"one, with stage={cfg.stage.name}")


def _check_optimizer(cfg: DictConfig) -> None:
    def positive(value: float) -> bool:
        return value > 0

    _check_number(cfg, "optim.lr", positive, "a number above 0")
    _check_number(cfg, "optim.aux_lr", positive, "a number above 0")
    if cfg.optim.clip_norm is not None:
        _check_number(cfg, "optim.clip_norm", positive, "a number above 0, or null for no clipping")
    if cfg.optim.ema_decay is not None:
        between = "a number between 0 and 1, both excluded, or null for no mean"
        _check_number(cfg, "optim.ema_decay", lambda value: 0 < value < 1, between)
    if cfg.optim.get("compile", False) not in COMPILE_MODES:
        raise ConfigError("optim.compile", cfg.optim.compile, COMPILE_MODES)
    _check_choice(cfg, "optim.schedule", SCHEDULES)
    _check_whole(cfg, "optim.halvings", 1)
    _check_whole(cfg, "optim.decay_steps", 1)
    _check_number(cfg, "optim.pretrain_share", lambda value: 0 <= value < 1, "a number from 0 to 1 (excluded)")
    _check_number(cfg, "optim.pretrain_factor", positive, "a number above 0")
    share = "a number from 0 (excluded) to 1"
    _check_number(cfg, "optim.decay_share", lambda value: 0 < value <= 1, share)
    _check_number(cfg, "optim.final_share", lambda value: 0 <= value <= 1, "a number from 0 to 1")


def _check_data(cfg: DictConfig) -> None:
    _check_choice(cfg, "data.name", data_set_names())
    _check_whole(cfg, "data.batch_size", 1)
    _check_whole(cfg, "data.crop", MIN_SIDE)
    processes = cfg.trainer.devices * cfg.trainer.num_nodes
    if cfg.data.batch_size % processes:
        raise ConfigError(
            "data.batch_size",
            cfg.data.batch_size,
            f"a multiple of trainer.devices x trainer.num_nodes = {processes}: it counts over all devices together",
        )
    if cfg.model.get("global_context") and cfg.data.crop < MIN_CROP_GLOBAL_CONTEXT:
        raise ConfigError(
            "data.crop",
            cfg.data.crop,
            f"a whole number from {MIN_CROP_GLOBAL_CONTEXT} up with model.global_context=true (in smaller patches it "
            "sees too few known positions to learn), or model.global_context=false",
        )
    _check_number(cfg, "data.min_zoom", lambda value: 0 < value <= 1, "a number from 0 (excluded) to 1")
    _check_choice(cfg, "data.flips", (True, False))
    if cfg.data.num_workers is not None:
        _check_whole(cfg, "data.num_workers", 0)
    _check_number(cfg, "data.preload_mb", lambda value: value >= 0, "a number from 0 up")


def _check_stage(cfg: DictConfig) -> None:
    stage = cfg.stage
    _check_choice(cfg, "stage.trains", ("all", "enhancer", "entropy"))
    chain = stage.get("chain")
    if chain is not None:
        if cfg.ckpt_path is not None:
            raise ConfigError("ckpt_path", cfg.ckpt_path, "null with stage=all: the same command again goes on")
        return
    if stage.trains != "all" and cfg.init_from in NO_FILE and cfg.ckpt_path is None:
        raise ConfigError("init_from", cfg.init_from, f"the checkpoint of a trained model, with stage={stage.name}")
    if (stage.trains == "enhancer" or stage.crop is not None) and cfg.enhancer.name is None:
        raise ConfigError("enhancer.name", None, f"an enhancer, with stage={stage.name}")
    if stage.trains == "entropy":
        _check_choice(cfg, "stage.takes", ("trunk", "shared"))
        _check_whole(cfg, "stage.copies", 1)
        if cfg.data.crop % LATENT:
            raise ConfigError("data.crop", cfg.data.crop, f"a multiple of {LATENT}, with stage={stage.name}")
    if stage.crop is not None:
        _check_whole(cfg, "stage.crop", LATENT)
        if stage.crop % LATENT or stage.crop > cfg.data.crop:
            limit = f"null, or a multiple of {LATENT} up to data.crop={cfg.data.crop}"
            raise ConfigError("stage.crop", stage.crop, limit)


def _check_tags(cfg: DictConfig) -> None:
    tags = OmegaConf.select(cfg, "tags", default=[])
    if not OmegaConf.is_list(tags) or not all(isinstance(tag, str) and 0 < len(tag) <= _TAG for tag in tags):
        raise ConfigError("tags", tags, f"words of up to {_TAG} characters: tags=[a,b]")


def _check_max_time(cfg: DictConfig) -> None:
    value = cfg.trainer.max_time
    if value is not None and not re.fullmatch(r"\d+:\d\d:\d\d:\d\d", str(value)):
        raise ConfigError("trainer.max_time", value, 'days:hours:minutes:seconds such as "00:01:30:00", or null')


def _check_name(cfg: DictConfig, key: str) -> None:
    value = OmegaConf.select(cfg, key)
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.-]*[A-Za-z0-9_-][A-Za-z0-9_.-]*", value):
        raise ConfigError(key, value, 'letters, digits, "_", "-" and "."')


def _check_choice(cfg: DictConfig, key: str, allowed: Sequence[object]) -> None:
    value = OmegaConf.select(cfg, key)
    if value not in allowed:
        raise ConfigError(key, value, allowed)


def _check_whole(cfg: DictConfig, key: str, smallest: int, largest: float = math.inf) -> None:
    check_whole(key, OmegaConf.select(cfg, key), smallest, largest)


def _check_number(cfg: DictConfig, key: str, is_allowed: Callable[[float], bool], allowed: str) -> None:
    value = OmegaConf.select(cfg, key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not is_allowed(value):
        raise ConfigError(key, value, allowed)
