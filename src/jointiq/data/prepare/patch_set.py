"""Make a set of training patches from folders of images: read them, choose, cut, and write a manifest.

The patches (:mod:`jointiq.data.prepared` says in what form and why) depend on the contents of the images and on the
settings alone, not on the names or places of files. Every image gives equally many, as far as it holds that many
different ones; no two are equal. The paper's set is 51,140 patches of 256x256 from the training set of CLIC.

Everything is written into ``DIR.part``, which becomes ``DIR`` at the end; an interrupted command continues.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from rich.progress import Progress

from jointiq.console import progress_bar
from jointiq.data.images import list_images
from jointiq.data.prepare.patch_cutting import SETTINGS, PatchSettings, cut_patches
from jointiq.data.prepare.sources import Source, choose, look_at_all
from jointiq.errors import ConfigError, DataError, UserError
from jointiq.files import FileFacts, write_text

_SOURCES, _LOCK = "sources.json", "lock"


def prepare(folders: Sequence[str], output: Path, settings: PatchSettings) -> dict[str, Any]:
    """Make the set of patches ``output`` from the images in ``folders``.

    Returns:
        The contents of its ``manifest.json``.

    Raises:
        ConfigError: a setting that is not allowed, or ``output`` holds something else.
        DataError: no usable image, or too few different patches in them.
        UserError: the disk is too small or full, or another process is making the same set.
    """
    settings.check()
    from jointiq.data.prepared import MANIFEST, read_manifest

    made = read_manifest(output)
    wanted = {"settings": asdict(settings), "folders": list(folders)}
    if made and wanted.items() <= made.items():
        return made
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError("--output", str(output), "a folder that does not exist yet, or the same command as before")
    paths = list(dict.fromkeys(path.resolve() for folder in folders for path in list_images(folder)))
    work = output.with_name(f"{output.name}.part")
    try:
        work.mkdir(parents=True, exist_ok=True)
        with FileLock(work / _LOCK, timeout=0), progress_bar() as progress:
            sources, left_out = _sources(paths, settings, work, progress)
            names = {one.sha256: _name(i, one.path) for i, one in enumerate(sources)}
            cut_patches(sources, names, settings, work, progress)
        images = {name: sha256 for sha256, name in names.items()}
        digest = hashlib.sha256("\n".join(sorted(images.values())).encode()).hexdigest()[:8]
        manifest = {"name": output.name, "digest": digest, **wanted, "images": images, "left_out": left_out}
        write_text(work / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        for name in (SETTINGS, _SOURCES, _LOCK):
            (work / name).unlink()
        work.replace(output)
    except Timeout as error:
        raise UserError(f"another process is writing {work}; allowed: wait for it, or another --output") from error
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or work}: {error.strerror or error}; what is there stays, and the same "
            "command goes on"
        ) from error
    return manifest


def _sources(
    paths: Sequence[Path], settings: PatchSettings, work: Path, progress: Progress
) -> tuple[list[Source], dict[str, str]]:
    """Return the images to cut from, those with the fewest places first; and why others are left out, by path."""
    task = progress.add_task("look at images", total=len(paths), note="")
    known = FileFacts(work / _SOURCES)
    sources, unreadable = look_at_all(paths, known, lambda: progress.advance(task))
    known.save()
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
    """Return a unique name of an image for the lists: a number, and the file's name in plain letters."""
    return f"{number:05d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', path.name)}"
