"""Cut training patches out of folders of images: ``python -m src.prepare SRC... --output DIR``.

The patches (:mod:`jointiq.data.prepared` says in what form and why) depend on the contents of the images and on the
settings alone, not on the names or places of files. Every image gives as many as the others, as far as it holds so many
different ones; no two are equal. The paper's set is 51,140 patches of 256x256 from the training set of CLIC.

Everything is written into ``DIR.part``, which becomes ``DIR`` at the end. The same command again goes on where one was
cut.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from jointiq.command_line import program
from jointiq.console import progress_bar
from jointiq.data.images import list_images
from jointiq.data.prepare.cutting import SETTINGS, Settings, cut_patches
from jointiq.data.prepare.sources import Source, choose, look_at_all
from jointiq.errors import ConfigError, DataError, UserError, run_cli
from jointiq.files import write_text

_SOURCES, _LOCK = "sources.json", "lock"


def prepare(folders: Sequence[str], output: Path, settings: Settings) -> dict[str, Any]:
    """Make the set of patches ``output`` from the images in ``folders``.

    Returns:
        What its ``manifest.json`` holds.

    Raises:
        ConfigError: a setting that is not allowed, or ``output`` holds something else.
        DataError: no usable image, or too few different patches in them.
        UserError: the disk is too small or full, or another process makes the same set.
    """
    settings.check()
    # Imported late, so that --help and a mistyped command do not wait for PyTorch.
    from jointiq.data.prepared import MANIFEST, read_manifest

    made = read_manifest(output)
    wanted = {"settings": asdict(settings), "folders": list(folders)}
    if made and wanted.items() <= made.items():
        return made
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError("--output", str(output), "a folder that does not exist yet, or the same command as before")
    work = output.with_name(f"{output.name}.part")
    try:
        work.mkdir(parents=True, exist_ok=True)
        with _locked(work), progress_bar() as progress:
            sources, left_out = _sources(folders, settings, work, progress)
            names = {one.sha256: _name(i, one.path) for i, one in enumerate(sources)}
            cut_patches(sources, names, settings, work, progress)
        images = {name: sha256 for sha256, name in names.items()}
        digest = hashlib.sha256("\n".join(sorted(images.values())).encode()).hexdigest()[:8]
        manifest = {"name": output.name, "digest": digest, **wanted, "images": images, "left_out": left_out}
        write_text(work / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        for name in (SETTINGS, _SOURCES, _LOCK):
            (work / name).unlink()
        work.replace(output)
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or work}: {error.strerror or error}; what is there stays, and the same "
            "command goes on"
        ) from error
    return manifest


@contextlib.contextmanager
def _locked(work: Path) -> Iterator[None]:
    with (work / _LOCK).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process is writing {work}; allowed: wait for it, or another --output") from error
        yield


def _sources(
    folders: Sequence[str], settings: Settings, work: Path, progress: Progress
) -> tuple[list[Source], dict[str, str]]:
    """The images to cut from, those with the fewest places first; and why others are left out, by path."""
    paths = list(dict.fromkeys(path.resolve() for folder in folders for path in list_images(folder)))
    task = progress.add_task("look at images", total=len(paths), note="")
    known = _read_known(work / _SOURCES)
    sources, unreadable = look_at_all(paths, known, lambda: progress.advance(task))
    write_text(work / _SOURCES, json.dumps({key: {**asdict(s), "path": str(s.path)} for key, s in known.items()}))
    chosen, left_out = choose(sources, settings.side, settings.near_duplicates)
    left_out |= unreadable
    if not chosen:
        path, reason = next(iter(left_out.items()))
        raise DataError(f"none of the {len(paths)} images can be used; first {path}: {reason}")
    if settings.patches < len(chosen):
        few = np.random.default_rng(settings.seed).choice(len(chosen), settings.patches, replace=False)
        chosen = [chosen[i] for i in sorted(few)]
    return sorted(chosen, key=lambda one: one.places(settings.side)), left_out


def _name(number: int, path: Path) -> str:
    """Name of an image in the lists: the file's, in plain letters, behind a number that makes it the only one."""
    return f"{number:05d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', path.name)}"


def _read_known(file: Path) -> dict[str, Source]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        return {key: Source(**{**one, "path": Path(one["path"])}) for key, one in stored.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and make the patches."""
    default = Settings()
    parser = argparse.ArgumentParser(
        prog=program("prepare"), description="Cut training patches out of folders of images."
    )
    parser.add_argument("folders", nargs="+", metavar="SRC", help="folder of images; read with all folders in it")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    for key, kind, text in (
        ("patches", int, "how many"),
        ("side", int, "of a patch, in pixels"),
        ("seed", int, "of all draws"),
        ("min-zoom", float, "a patch shows a square of SIDE / zoom pixels, zoom uniform from this to 1, scaled down"),
    ):
        value = getattr(default, key.replace("-", "_"))
        parser.add_argument(f"--{key}", type=kind, default=value, metavar="N", help=f"{text}; default: %(default)s")
    parser.add_argument(
        "--near-duplicates", type=int, metavar="BITS",
        help="leave out images whose 64-bit fingerprint differs from another's in at most BITS; default: copies only",
    )  # fmt: skip
    given = vars(parser.parse_args(arguments))
    folders, output = given.pop("folders"), given.pop("output")
    manifest = prepare(folders, output, Settings(**given))
    from jointiq.data.prepared import MANIFEST

    left_out = manifest["left_out"]
    print(f"{output}: {given['patches']} patches of {given['side']}x{given['side']}, {len(manifest['images'])} images")
    for path, reason in list(left_out.items())[:10]:
        print(f"left out: {path}: {reason}")
    if len(left_out) > 10:
        print(f"left out: {len(left_out) - 10} more, listed in {output / MANIFEST}")
    print(f"train on it: data=prepared data.train_dir={output} data.val_dir=DIR")
    return 0


if __name__ == "__main__":
    run_cli(main)
