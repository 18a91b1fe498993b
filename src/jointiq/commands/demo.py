"""The whole chain on the embedded photographs: train, encode, decode elsewhere, compare. ``make demo`` runs it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jointiq.coding import CHECKPOINT
from jointiq.command_line import TRAIN, Parser, override, program
from jointiq.console import progress_bar
from jointiq.data.sample import sample_images
from jointiq.errors import EXIT_INTERRUPTED, ConfigError, UserError, run_cli

if TYPE_CHECKING:
    from rich.progress import Progress

    from jointiq.evaluation.demo import Advance

#: A low rate, where a model is furthest ahead of JPEG after minutes of training.
LMBDA = 0.6
#: Largest number of optimizer steps; the time cap usually ends the training earlier.
STEPS = 3000


def train(folder: Path, minutes: float, overrides: Sequence[str] = ()) -> Path:
    """Train a demo-scale JointIQ-Net in a process of its own and return its checkpoint.

    Args:
        folder: the run's folder; an earlier run in it is moved aside by the training.
        minutes: wall-clock cap.
        overrides: further ``key=value`` for ``src.train``, which take precedence.

    Raises:
        UserError: the training failed; its own message is above.
    """
    days, seconds = divmod(round(60 * minutes), 86400)
    clock = f"{days:02d}:{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    command = [*TRAIN, "+experiment=jointiq", "scale=demo", "data=sample", "test=false", f"trainer.max_steps={STEPS}"]
    values = [f"lmbda={LMBDA}", override("paths.run_dir", folder.resolve()), override("trainer.max_time", clock)]
    command += [*values, *overrides]
    code = subprocess.run(command, check=False).returncode
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise UserError(f"training failed with exit code {code}; its message is above")
    return folder / CHECKPOINT


def run(output: Path, minutes: float, checkpoint: Path | None, overrides: Sequence[str]) -> list[Path]:
    """Run the demo and return the paths written."""
    # Imported late, so that --help and a mistyped command do not wait for PyTorch.
    from jointiq.coding.load import load_model
    from jointiq.evaluation import demo as report

    images = sample_images("test")
    title = "JointIQ-Net, demo scale"
    if checkpoint is None:
        say(f"1/4 training (at most {minutes:g} minutes)")
        checkpoint = train(output / "run", minutes, overrides)
        title += f", trained for {minutes:g} minutes at most"
    model = load_model(checkpoint)
    files, pictures = output / "files", output / "decoded"
    say("2/4 encoding the held-out photographs")
    with progress_bar() as progress:
        coded = report.encode_files(model, images, files, ticker(progress, "encode", len(images)))
    say("3/4 decoding them in another process")
    report.decode_in_another_process(files, pictures, checkpoint)
    say("4/4 measuring, beside JPEG and JPEG 2000")
    curve_points = len(images) * sum(len(codec.settings) for codec in report.ANCHORS)
    with progress_bar() as progress:
        tick = ticker(progress, "measure", len(images))
        measured = report.measure_files(model, coded, pictures, str(checkpoint), tick)
        rows = report.table_rows(measured, ticker(progress, "nearest rate", len(images) * len(report.ANCHORS)))
        written = report.write_report(output, measured, rows, title, ticker(progress, "RD curves", curve_points))
    report.demo_table(rows).print()
    return [checkpoint, *(item.file for item in coded), *(pictures / f"{item.name}.png" for item in coded), *written]


def ticker(progress: Progress, text: str, total: int) -> Advance:
    """Add a progress bar and return the function that advances it."""
    task = progress.add_task(text, total=total, note="")
    return lambda: progress.advance(task)


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run the demo."""
    parser = Parser(prog=program("demo"), description=__doc__)
    parser.add_argument("--train-minutes", type=float, default=4.5, metavar="M", help="cap, default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("results/demo"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--checkpoint", type=Path, metavar="CKPT", help="skip the training and use this model")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="passed on to src.train")
    options = parser.parse_args(arguments)
    if not 0 < options.train_minutes < 100_000:
        raise ConfigError("--train-minutes", options.train_minutes, "a number of minutes above 0")
    started = time.monotonic()
    written = run(options.output, options.train_minutes, options.checkpoint, options.overrides)
    say("files:\n" + "\n".join(f"  {path}" for path in written))
    say(f"done in {(time.monotonic() - started) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    run_cli(main)
