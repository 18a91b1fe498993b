import pytest

from jointiq.coding.export import write_export
from jointiq.coding.image_codec import decode_image, encode_image
from jointiq.data.images import write_png
from jointiq.errors import UserError
from jointiq.evaluation.metrics import psnr
from jointiq.evaluation.models import QUALITIES
from tools.shipping.ship_measurements import Means, loses_nothing, measure_exports, refuse_disorder


def numbers(bpp, psnr, quality=50):
    return Means(quality, bpp, psnr, 0.9, 1.0, 1.0)


def test_real_files(living, picture, tmp_path):
    images, files = [], []
    for number in range(2):
        write_png(tmp_path / f"{number}.png", picture(30, 41 + number, seed=number))
        images.append(tmp_path / f"{number}.png")
        files.append(tmp_path / f"m{number}.safetensors")
        write_export(living(seed=number, rates="continuous"), files[-1])
    measured = measure_exports(files, images, "cpu", 1, tmp_path / "rows")
    assert set(measured) == set(files)
    for number, file in enumerate(files):
        model = living(seed=number, rates="continuous")
        assert tuple(point.quality for point in measured[file]) == QUALITIES
        for point in (measured[file][0], measured[file][5]):
            bpp, decibels = [], []
            for seed in range(2):
                image = picture(30, 41 + seed, seed=seed)
                data = encode_image(model.at(point.quality), image).data
                bpp.append(8 * len(data) / (30 * (41 + seed)))
                decibels.append(psnr(image, decode_image(model, data).image))
            assert point.bpp == pytest.approx(sum(bpp) / 2)
            assert point.psnr == pytest.approx(sum(decibels) / 2)
            assert point.ms_ssim is None


def test_an_image_that_cannot_be_coded(living, picture, tmp_path):
    write_png(tmp_path / "good.png", picture(20, 20))
    (tmp_path / "bad.png").write_bytes(b"no image")
    write_export(living(rates="continuous"), tmp_path / "m.safetensors")
    with pytest.raises(UserError, match=r"bad\.png cannot be coded with m"):
        measure_exports([tmp_path / "m.safetensors"], sorted(tmp_path.glob("*.png")), "cpu", 1, tmp_path / "rows")


@pytest.mark.parametrize(
    ("bpp", "psnr", "nothing"),
    [(0.5, 30.0, True), (0.50004, 30.004, True), (0.5, 29.994, False), (0.5, 30.006, True), (0.5001, 30.0, False),
     (0.4999, 30.0, True)],
)  # fmt: skip
def test_what_counts_as_no_loss(bpp, psnr, nothing):
    good = numbers(0.1, 25.0)
    assert loses_nothing((good, numbers(bpp, psnr)), (good, numbers(0.5, 30.0))) is nothing


def test_order_of_quality():
    first = numbers(0.1, 25.0, 1)
    refuse_disorder("mine", (first, numbers(0.2, 26.0, 20)))
    for bpp in (0.1, 0.05):
        with pytest.raises(UserError, match=f"mine has {bpp:.4f} bpp at quality 20, 0.1000 at 1"):
            refuse_disorder("mine", (first, numbers(bpp, 26.0, 20)))
    with pytest.raises(UserError, match="mine has 24.0000 dB.*PSNR rises"):
        refuse_disorder("mine", (first, numbers(0.2, 24.0, 20)))
