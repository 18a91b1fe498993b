"""The tables of the model card ``weights/README.md``, between two markers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jointiq.console import Table, number
from jointiq.data.image_sets import set_text
from jointiq.errors import UserError
from jointiq.evaluation.metrics import ms_ssim_db
from jointiq.files import fill_in

BEGIN, END = "<!-- models: written by tools.ship -->", "<!-- end of models -->"
CARD = "README.md"


def read_card(folder: Path, fallback: Path) -> str:
    """Read the card in ``folder``, or, where there is none, the one in ``fallback``.

    Raises:
        UserError: there is none with both markers.
    """
    path = next((at / CARD for at in (folder, fallback) if (at / CARD).is_file()), folder / CARD)
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if fill_in(text, BEGIN, END, "") is None:
        raise UserError(f"{path}: no card with the lines {BEGIN} and {END}, between which the models are listed")
    return text


def filled(card: str, index: Mapping[str, Any]) -> str:
    """Return a card with the models of an index between its markers."""
    return fill_in(card, BEGIN, END, _models(index)) or card


def _models(index: Mapping[str, Any]) -> str:
    test, models = index["test"], index["models"]
    parts = [
        _body(_sizes(models)),
        f"Means over the {test['images']} images of {test['name']} ({test['digest']}), from real files, coded on "
        f"{test['device']}, processes: {test['workers']}:\n",
        *(_body(_numbers(model)) for model in models),
        f"`{test['command']}`\n",
        "How they were trained:\n",
        _body(_trainings(models)),
        *(_stages(model) for model in models),
    ]
    return "\n".join(parts)


def _numbers(model: Mapping[str, Any]) -> Table:
    header = (model["name"], "bpp", "PSNR dB", "MS-SSIM", "MS-SSIM dB", "encoding s", "decoding s")
    table = Table("", header, left=1)
    for point in model["measured"]:
        linear = point["ms_ssim"]
        table.rows.append((
            f"quality {point['quality']:g}", number(point["bpp"], 4), number(point["psnr"], 3), number(linear, 5),
            number(None if linear is None else ms_ssim_db(linear), 3), number(point["encoding_time"], 2),
            number(point["decoding_time"], 2),
        ))  # fmt: skip
    return table


def _sizes(models: Sequence[Mapping[str, Any]]) -> Table:
    header = ("model", "N / M", "parameters", "MB", "transforms")
    table = Table("", header, left=1)
    for model in models:
        table.rows.append((
            f"[{model['name']}]({model['file']})", f"{model['N']} / {model['M']}", f"{model['parameters']:,}",
            number(model["bytes"] / 1e6, 2), model["transforms"],
        ))  # fmt: skip
    return table


def _trainings(models: Sequence[Mapping[str, Any]]) -> Table:
    header = ("model", "experiment", "scale", "lambda", "steps", "training images", "trained on", "revision")
    table = Table("", header, left=len(header))
    for model in models:
        training = model["training"]
        data = ", ".join(set_text(**data) for data in training["data"])
        revision = (training["revision"] or "unknown")[:10]
        table.rows.append((
            model["name"], model["experiment"], model["scale"], _lambdas(training["stages"][-1]),
            f"{training['steps']:,}" + ("" if training["complete"] else ", after others"), data or "not recorded",
            training["device"],
            f"{revision} + uncommitted changes" if training["uncommitted_changes"] else revision,
        ))  # fmt: skip
    return table


def _lambdas(stage: Mapping[str, Any]) -> str:
    return " to ".join(f"{one:g}" for one in stage["lambdas"])


def _stages(model: Mapping[str, Any]) -> str:
    """Return the trainings of one model, each from the one before: a table, and the commands."""
    stages = model["training"]["stages"]
    table = Table("", (model["name"], "steps", "patches of a step", "learning rate", "lambda", "hours"), left=1)
    for place, stage in enumerate(stages, start=1):
        table.rows.append((
            f"training {place}", f"{stage['steps']:,}", f"{stage['batch_size']} of {stage['crop']}x{stage['crop']}",
            f"{stage['lr']:g}", _lambdas(stage), number(stage["hours"], 2),
        ))  # fmt: skip
    return "\n".join([_body(table), "```sh", *_commands(stages), "```", ""])


def _commands(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the command of each training; what all of them share is written once, as a shell function."""
    commands = [stage["command"].split() for stage in stages if stage["command"]]
    if len(commands) < 2:
        return [" ".join(command) for command in commands]
    shared = [word for word in commands[0] if all(word in command for command in commands)]
    own = [[word for word in command if word not in shared] for command in commands]
    return [
        f'train() {{ {" ".join(shared)} "$@"; }}',
        *(" ".join(["train", *words]) for words in own),
    ]


def _body(table: Table) -> str:
    """Return a table as Markdown, without a title."""
    return table.markdown().split("\n", 2)[2]
