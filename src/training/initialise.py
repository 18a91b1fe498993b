"""Start a training from the weights of another model (``init_from=``)."""

from __future__ import annotations

from typing import Any

from compressai.models import CompressionModel

from src.errors import UserError
from src.models.checkpoint import load_model

_ENHANCER = "enhancer"


def initialise(net: CompressionModel, path: str) -> str:
    """Fill ``net`` with the weights in ``path``, a training checkpoint or an export; averaged ones where it holds them.

    The compression networks have to be alike in every setting, the entropy model's included. The enhancer is taken
    along if it is the same, and else starts anew.

    Returns:
        What was taken, as a line to show.

    Raises:
        UserError: no such file, no model in it, or another compression network; names the settings that differ.
    """
    try:
        source = load_model(path)
    except UserError as error:
        raise UserError(f"init_from: {error}") from error
    ours, theirs = dict(net.config), dict(source.config)
    keys = [key for key in {**theirs, **ours} if key != _ENHANCER and ours.get(key) != theirs.get(key)]
    if keys:
        differences = ", ".join(f"{key}={theirs.get(key)} there, {ours.get(key)} here" for key in keys)
        raise UserError(
            f"init_from={path} holds another compression network: {differences}; allowed: one that differs in its "
            "enhancer at most"
        )
    same = ours[_ENHANCER] == theirs[_ENHANCER]
    state = {**net.state_dict(), **{key: value for key, value in source.state_dict().items() if _fits(key, same)}}
    net.load_state_dict(state)
    if same:
        return f"{path}: all weights taken"
    enhancer = "no enhancer here" if ours[_ENHANCER] is None else f"the enhancer {_size(ours)} starts anew"
    return f"{path}: weights of the compression network taken; {enhancer} ({_size(theirs)} there)"


def _fits(key: str, same_enhancer: bool) -> bool:
    # The extra state is the configuration: that of the model that is being filled stays.
    return not key.endswith("_extra_state") and (same_enhancer or not key.startswith(f"{_ENHANCER}."))


def _size(config: dict[str, Any]) -> str:
    enhancer = config[_ENHANCER]
    if enhancer is None:
        return "none"
    return " ".join([str(enhancer["name"]), *(f"{key}={value}" for key, value in enhancer.items() if key != "name")])
