"""Sets of images by the hashes of their pixels: to name them in tables, and to keep test images out of training."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jointiq.console import progress_bar
from jointiq.data.images import list_images, pixel_hash, read_image
from jointiq.data.sample import sample_images
from jointiq.errors import ConfigError, DataError
from jointiq.files import FileFacts, write_text

#: Folder names that say nothing without that of the parent.
_GENERIC = {"train", "val", "valid", "validation", "test", "images", "png", "data"}

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class ImageSet:
    """A set of images.

    Attributes:
        name: for tables.
        paths: the files, folder after folder as they were given, sorted within each.
        hashes: SHA-256 of the pixels of each (decoded, 8-bit RGB), so that a copy in another format is recognised.
    """

    name: str
    paths: tuple[Path, ...]
    hashes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that identify the contents, whatever the names and places of the files."""
        return hashlib.sha256("\n".join(sorted(self.hashes)).encode()).hexdigest()[:8]

    @property
    def slug(self) -> str:
        """The name in the letters of a file name."""
        return re.sub(r"[^A-Za-z0-9]+", "_", self.name).strip("_")

    def __str__(self) -> str:
        """Return the text for tables."""
        return set_text(self.name, len(self.paths), self.digest)


def set_text(name: str, images: int, digest: str) -> str:
    """Return what tables say of a set: its name, number of images and hash."""
    return f"{name} ({images} images, {digest})"


def read_set(given: Sequence[str], cache: Path) -> ImageSet:
    """Read the images of folders, ``DIR`` or ``NAME=DIR``; ``sample:train`` and so on are the sample photographs.

    Args:
        given: the folders; their names are joined by "+".
        cache: folder where the hashes of files are kept, so that each is read once.

    Raises:
        DataError: a folder without images, or an image that cannot be read.
    """
    names, paths = [], []
    for text in given:
        name, folder = name_and_folder(text)
        if folder.startswith("sample:"):
            paths += sample_images(folder.removeprefix("sample:"))
            names.append(name or "sample photographs")
        else:
            paths += list_images(folder)
            names.append(name or folder_name(Path(folder)))
    return ImageSet("+".join(names), tuple(paths), tuple(hashes(paths, FileFacts(cache / "hashes.json"))))


def name_and_folder(text: str) -> tuple[str, str]:
    """Split ``NAME=DIR``; the name is "" where none is given. A folder may have an equals sign in its path."""
    name, equals, folder = text.partition("=")
    return (name, folder) if equals and "/" not in name else ("", text)


def folder_name(folder: Path) -> str:
    """Return the folder's name, with its parent's where it is a generic one such as ``train``."""
    folder = folder.resolve()
    return f"{folder.parent.name}/{folder.name}" if folder.name.lower() in _GENERIC else folder.name


def refuse_trained(test: ImageSet, train: ImageSet) -> None:
    """Refuse to measure on images that were trained on.

    Raises:
        DataError: the test set holds such an image.
    """
    known = dict(zip(train.hashes, train.paths, strict=True))
    found = [(path, known[digest]) for path, digest in zip(test.paths, test.hashes, strict=True) if digest in known]
    if found:
        path, trained = found[0]
        raise DataError(
            f"{len(found)} of the {len(test.paths)} images of {test.name} are in the training set, first {path} "
            f"({trained.name} there); allowed: images that no model was trained on"
        )


def refuse_listed(test: ImageSet, manifest: Path) -> None:
    """Refuse to measure on images that a manifest lists: the file :func:`write_manifest` makes of a training set.

    Raises:
        ConfigError: the manifest cannot be read.
        DataError: the test set holds such an image.
    """
    train = read_listed(manifest)
    if train is None:
        raise ConfigError("--manifest", str(manifest), "the manifest.json of a training set")
    refuse_trained(test, train)


def check_disjoint(measured: Sequence[ImageSet], train: ImageSet | None, manifests: Sequence[Path]) -> None:
    """Refuse to measure on images that are in ``train`` or in one of the manifests.

    Raises:
        ConfigError: a manifest cannot be read.
        DataError: one of the sets holds such an image.
    """
    for images in measured:
        if train:
            refuse_trained(images, train)
        for manifest in manifests:
            refuse_listed(images, manifest)


def link_folder(images: ImageSet, folder: Path) -> Path:
    """Make a folder of links to the images, named by their contents, with a manifest (file name -> hash) beside it.

    A training on several folders then has one folder of images. Its run's name does not depend on where the images are,
    nor does their order depend on that of the folders: the names of the links, which decide the order, are kept from
    the first time.
    """
    target, manifest = folder / images.digest, folder / f"{images.digest}.json"
    names = _kept_names(images, manifest) or _numbered(images)
    # The manifest comes first, so that links that a killed process left out get the same names.
    _write_manifest(images, names, manifest)
    target.mkdir(parents=True, exist_ok=True)
    for found in target.iterdir():
        if found.is_symlink() and found.name not in names:
            found.unlink()
    for name, path in zip(names, images.paths, strict=True):
        link = target / name
        if link.is_symlink() and link.resolve() == path.resolve():
            continue
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())
    return target


def write_manifest(images: ImageSet, path: Path) -> Path:
    """Write a manifest of the images: ``{"name", "digest", "images": {file name: hash}}``."""
    return _write_manifest(images, _numbered(images), path)


def read_listed(path: Path) -> ImageSet | None:
    """Read the images of a manifest (:func:`write_manifest`, ``src.prepare``); None where the file is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        name, listed = document["name"], document["images"]
        hashes = tuple(listed.values())
        if not isinstance(name, str) or not all(map(_SHA256.fullmatch, hashes)):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return ImageSet(name, tuple(map(Path, listed)), hashes)


def _numbered(images: ImageSet) -> list[str]:
    """Return a unique file name for each image: a number and its own name."""
    return [f"{number:05d}_{path.name}" for number, path in enumerate(images.paths)]


def _kept_names(images: ImageSet, manifest: Path) -> list[str] | None:
    """Return the names of these images in a manifest; None where it lists others, or there is none."""
    listed = read_listed(manifest)
    if listed is None or sorted(listed.hashes) != sorted(images.hashes):
        return None
    names: dict[str, list[str]] = {}
    for path, digest in zip(listed.paths, listed.hashes, strict=True):
        names.setdefault(digest, []).append(path.name)
    return [names[digest].pop(0) for digest in images.hashes]


def _write_manifest(images: ImageSet, names: Sequence[str], path: Path) -> Path:
    listed = dict(sorted(zip(names, images.hashes, strict=True)))
    document = {"name": images.name, "digest": images.digest, "images": listed}
    write_text(path, json.dumps(document, indent=1) + "\n")
    return path


def hashes(paths: Sequence[Path], known: FileFacts, note: str = "look at images") -> list[str]:
    """Return the SHA-256 of the pixels of each image; reads those that are not in ``known``, and saves it.

    Raises:
        DataError: an image that cannot be read.
    """
    new = [path for path in paths if known.get(path) is None]
    if new:
        with progress_bar() as progress:
            task = progress.add_task(note, total=len(new), note="")
            for path in progress.track(new, task_id=task):
                known.set(path, pixel_hash(read_image(path)))
        known.save()
    return [known.get(path) for path in paths]
