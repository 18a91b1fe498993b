"""Code the images of a study with its trained models to real files; cached rows are not measured again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jointiq.coding.image_codec import decode_latents, encode_image
from jointiq.console import progress_bar
from jointiq.data.image_sets import ImageSet
from jointiq.errors import DataError
from jointiq.evaluation.measuring import Measured, measure
from jointiq.evaluation.metrics import Image
from jointiq.evaluation.models import ModelMaker, makers_of
from jointiq.evaluation.rd import Row
from jointiq.studies.context import MeasuredRows
from jointiq.studies.training import Training


@dataclass(frozen=True)
class SizesMaker(ModelMaker):
    """A maker of the sizes of a model's real files, without decoded pictures.

    Attributes:
        checked: names of images whose files are decoded to latents, which fails if these are not the encoder's.
    """

    checked: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """Return the identity of the model, and that there are no pictures."""
        return {**super().identity(), "pictures": False}

    def measure(self, name: str, image: Image) -> tuple[Row, None]:
        """Return a row with size, bits per pixel and encoding time."""
        encoded = encode_image(self.model, image, estimate=False)
        if name in self.checked:
            decode_latents(self.model, encoded.data)
        height, width = image.shape[:2]
        size = len(encoded.data)
        row = {"checkpoint": self.name, "image": name, "width": width, "height": height, "bytes": size}
        return {**row, "bpp": 8 * size / (height * width), "encoding_time": encoded.seconds}, None


def measure_trained(
    trained: Sequence[Training],
    sizes: Sequence[Training],
    sets: Sequence[ImageSet],
    device: str,
    cache: Path,
    at_once: int,
) -> MeasuredRows:
    """Measure the images of all sets with trained models, ``at_once`` processes at a time.

    Args:
        trained: models whose files are all decoded.
        sizes: models of whose files only one in each set is decoded.
        cache: folder of the rows.

    Raises:
        DataError: a decoder got other latents than its encoder, or an image cannot be coded.
        UserError: a checkpoint that cannot be read.
    """
    images = [(path.name, path) for one in sets for path in one.paths]
    digests = [digest for one in sets for digest in one.hashes]
    checked = tuple(one.paths[0].name for one in sets)
    of: list[tuple[Training, ModelMaker]] = []
    for one in trained:
        made = makers_of([str(one.checkpoint)], device, one.run.qualities, one.run.refine)
        of += [(one, replace(maker, name=one.folder.name)) for maker in made]
    of += [(one, SizesMaker(str(one.checkpoint), device, one.folder.name, checked=checked)) for one in sizes]
    makers = [maker for _, maker in of]
    with progress_bar() as progress:
        bar = progress.add_task("code images", total=len(makers) * len(images), note="", visible=bool(makers))

        def advance(done: Measured) -> None:
            progress.update(bar, advance=1, note=f"{done.maker.name} {done.image}")

        measured = measure(makers, images, cache, at_once, advance)
    rows: dict[tuple[Path, int], dict[float | None, dict[str, Row]]] = {}
    for (one, maker), of_model in zip(of, measured, strict=True):
        for done in of_model:
            if done.row is None:
                raise DataError(f"{one.checkpoint}: {done.image}: {done.problem}")
            if done.row.get("latents_equal") is False:
                raise DataError(
                    f"{one.checkpoint}: the decoder did not arrive at the encoder's latents of {done.image}"
                )
        known = {digest: done.row for digest, done in zip(digests, of_model, strict=True) if done.row}
        rows.setdefault(one.measured_as, {})[maker.quality] = known
    return rows
