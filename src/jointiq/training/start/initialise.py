"""Initialise a network with the weights of another model (``init_from=``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from jointiq.coding.load import load_model
from jointiq.errors import UserError
from jointiq.models.base import LearnedCodec
from jointiq.models.state import ENTROPY_MODEL
from jointiq.training.start.pca import has_the_transforms
from jointiq.training.start.widen import widen

_ENHANCER = "enhancer"
# The settings that may be larger than those of the source.
_WIDTHS = ("N", "M")


def initialise(net: LearnedCodec, path: str, takes: str = "model", patches: Callable[[], Tensor] | None = None) -> str:
    """Load weights from ``path``, a training checkpoint or an export, into ``net``; averaged weights if it has them.

    Args:
        takes: the parts to load. The settings of these parts must agree.

            - ``model``: the whole network. The enhancer is loaded if it is the same; otherwise it starts anew. Of
              models that grow from stage to stage the parts that both have are loaded. Where ``net`` has more channels
              (N, M), this is ``shared``.
            - ``trunk``: g_a, g_s and the enhancer. The entropy model starts anew.
            - ``shared``: the trunk, and what variants of the entropy model have in common
              (:attr:`jointiq.entropy_models.base.EntropyModel.SHARED`). In JointIQ-Net's that is h_a, h_s, the prior
              of z and the first two layers of f. The later layers of f start anew, even where the weights would fit,
              so that no variant has a head start.
        patches: returns training patches (B, 3, H, W) uint8, for new channels of y (:func:`.widen.widen`); None: more
            channels are refused.

    Returns:
        What was loaded, as a line to show.

    Raises:
        UserError: no such file, no model in it, or another network; the message names the settings that differ.
    """
    try:
        source = load_model(path)
    except UserError as error:
        raise UserError(f"init_from: {error}") from error
    ours, theirs = dict(net.config), dict(source.config)
    can_grow = patches is not None and has_the_transforms(net)
    wider = [key for key in _WIDTHS if can_grow and ours.get(key, 0) > theirs.get(key, 0) > 0]
    if takes != "model" or wider:
        return _take_parts(net, source, path, takes, wider, patches)
    differing = [key for key in {**theirs, **ours} if key != _ENHANCER and ours.get(key) != theirs.get(key)]
    keys = [key for key in differing if key not in net.staged()]
    if keys:
        differences = ", ".join(f"{key}={theirs.get(key)} there, {ours.get(key)} here" for key in keys)
        alike = " ".join(f"model.{key}={theirs.get(key)}" for key in keys)
        way_out = "" if "name" in keys else f", or here with {alike}"
        raise UserError(
            f"init_from={path} holds another compression network: {differences}; allowed: one that differs in its "
            f"enhancer at most{way_out}"
        )
    same = ours[_ENHANCER] == theirs[_ENHANCER]
    _fill(net, source, lambda key: same or not key.startswith(f"{_ENHANCER}."))
    if differing:
        grown = ", ".join(f"{key}={theirs.get(key)} there, {ours.get(key)} here" for key in differing)
        return f"{path}: weights of the parts that both have taken ({grown}); the rest starts anew"
    if same:
        return f"{path}: all weights taken"
    enhancer = "no enhancer here" if ours[_ENHANCER] is None else f"the enhancer {_size(ours)} starts anew"
    return f"{path}: weights of the compression network taken; {enhancer} ({_size(theirs)} there)"


def _take_parts(
    net: LearnedCodec,
    source: LearnedCodec,
    path: str,
    takes: str,
    wider: list[str],
    patches: Callable[[], Tensor] | None,
) -> str:
    """Load the trunk of ``net`` and, unless ``takes`` is ``trunk``, what entropy models have in common.

    Args:
        wider: the settings that are larger in ``net``.
        path, takes, patches: see :func:`initialise`.
    """
    model = net.entropy_model
    settings, shared = ["name", *net.trunk_settings(), _ENHANCER], list[str]()
    if takes != "trunk" and model is not None:
        modules = [dict(each.named_modules()) for each in (model, source.entropy_model) if each is not None]
        for part, setting in model.SHARED.items():
            agrees = setting is None or net.config.get(setting) == source.config.get(setting)
            if all(part in names for names in modules) and (agrees or not wider):
                shared.append(part)
                settings += [setting] if setting and setting not in settings else []
    differences = []
    for key in settings:
        if key not in wider and net.config.get(key) != source.config.get(key):
            there, here = (_size(c) if key == _ENHANCER else c.get(key) for c in (source.config, net.config))
            differences.append(f"{key}={there} there, {here} here")
    if differences:
        raise UserError(
            f"init_from={path} holds another network: {', '.join(differences)}; allowed: with stage.takes={takes} one "
            f"with the same {', '.join(settings[1:])}"
        )

    trunk = [name for name, part in net.named_children() if part is not model]
    parts = [*trunk, *(ENTROPY_MODEL + part for part in shared)]
    taken = f"{path}: weights of {', '.join([*trunk, *shared])} taken"
    if not wider or patches is None:
        _fill(net, source, lambda key: key.startswith(tuple(f"{part}." for part in parts)))
        return f"{taken}; the rest starts anew"
    widen(net, source, parts, patches())
    larger = ", ".join(f"{key}={source.config[key]} there, {net.config[key]} here" for key in wider)
    return f"{taken}, new channels added ({larger}); the rest starts anew"


def _fill(net: LearnedCodec, source: LearnedCodec, takes: Callable[[str], bool]) -> None:
    """Load the weights of ``source`` whose names ``takes`` accepts, where ``net`` has them."""
    # The extra state is the configuration; `net` keeps its own.
    state, own = source.state_dict().items(), net.state_dict()
    taken = {key: value for key, value in state if takes(key) and key in own and not key.endswith("_extra_state")}
    net.load_state_dict({**own, **taken})


def _size(config: dict[str, Any]) -> str:
    enhancer = config[_ENHANCER]
    if enhancer is None:
        return "none"
    return " ".join([str(enhancer["name"]), *(f"{key}={value}" for key, value in enhancer.items() if key != "name")])
