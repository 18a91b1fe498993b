import pytest

from jointiq.coding.export import write_export
from jointiq.coding.image_codec import decode_image, encode_image
from jointiq.data.images import write_png
from jointiq.errors import UserError
from jointiq.evaluation.metrics import psnr
from tools.shipping.ship_measurements import Means, loses_nothing, measure_exports, refuse_disorder


def numbers(bpp, psnr):
    return Means(bpp, psnr, 0.9, 1.0, 1.0)


def test_real_files(living, picture, tmp_path):
    images, files = [], []
    for number in range(2):
        write_png(tmp_path / f"{number}.png", picture(30, 41 + number, seed=number))
        images.append(tmp_path / f"{number}.png")
        files.append(tmp_path / f"m{number}.safetensors")
        write_export(living(seed=number), files[-1])
    measured = measure_exports(files, images, "cpu", 1, tmp_path / "rows")
    assert set(measured) == set(files)
    for number, file in enumerate(files):
        bpp, quality = [], []
        for seed in range(2):
            image = picture(30, 41 + seed, seed=seed)
            data = encode_image(living(seed=number), image).data
            bpp.append(8 * len(data) / (30 * (41 + seed)))
            quality.append(psnr(image, decode_image(living(seed=number), data).image))
        assert measured[file].bpp == pytest.approx(sum(bpp) / 2)
        assert measured[file].psnr == pytest.approx(sum(quality) / 2)
        assert measured[file].ms_ssim is None


def test_an_image_that_cannot_be_coded(living, picture, tmp_path):
    write_png(tmp_path / "good.png", picture(20, 20))
    (tmp_path / "bad.png").write_bytes(b"no image")
    write_export(living(), tmp_path / "m.safetensors")
    with pytest.raises(UserError, match=r"bad\.png cannot be coded with m"):
        measure_exports([tmp_path / "m.safetensors"], sorted(tmp_path.glob("*.png")), "cpu", 1, tmp_path / "rows")


@pytest.mark.parametrize(
    ("bpp", "psnr", "nothing"),
    [(0.5, 30.0, True), (0.50004, 30.004, True), (0.5, 29.994, False), (0.5, 30.006, True), (0.5001, 30.0, False),
     (0.4999, 30.0, True)],
)  # fmt: skip
def test_what_counts_as_no_loss(bpp, psnr, nothing):
    assert loses_nothing(numbers(bpp, psnr), numbers(0.5, 30.0)) is nothing


def test_order_of_quality():
    refuse_disorder([numbers(0.1, 25.0), numbers(0.2, 26.0)], ["q1", "q2"])
    for bpp in (0.1, 0.05):
        with pytest.raises(UserError, match=f"q2 has {bpp:.4f} bpp, q1 before it 0.1000"):
            refuse_disorder([numbers(0.1, 25.0), numbers(bpp, 26.0)], ["q1", "q2"])
    with pytest.raises(UserError, match="q2 has 24.0000 dB.*PSNR rises"):
        refuse_disorder([numbers(0.1, 25.0), numbers(0.2, 24.0)], ["q1", "q2"])
