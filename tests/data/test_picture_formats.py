"""Every format that is accepted, in every compression that Pillow writes; what tags and profiles do to a picture."""

from __future__ import annotations

import io
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageCms, TiffImagePlugin

from jointiq.data.images import SUFFIXES, image_size, read_image
from jointiq.data.samples import is_deep
from jointiq.errors import DataError
from tests.conftest import photo
from tests.marks import slow

#: Wider than 84 pixels, where the length of a BMP's row passes 255, and as small as a thumbnail.
SIZES = [(203, 301), (64, 100), (13, 11)]

LOSSLESS = {
    "png": ("a.png", {}),
    "png, interlaced": ("a.png", {"interlace": 1}),
    "bmp": ("a.bmp", {}),
    "ppm": ("a.ppm", {}),
    "webp": ("a.webp", {"lossless": True}),
    "jpeg 2000": ("a.jp2", {}),
    "jpeg 2000 codestream": ("a.j2k", {"no_jp2": True}),
    "tiff": ("a.tiff", {}),
    "tiff, big-endian": ("a.tif", {"big_endian": True}),
    **{
        f"tiff {name}": ("a.tif", {"compression": name})
        for name in ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "zstd", "lzma")
        if name in TiffImagePlugin.COMPRESSION_INFO_REV
    },
}
LOSSY = {
    "jpeg": ("a.jpg", {"quality": 95}),
    "progressive jpeg": ("a.jpeg", {"quality": 95, "progressive": True}),
    "webp": ("a.webp", {"quality": 95}),
    "avif": ("a.avif", {"quality": 95}),
    "jpeg 2000": ("a.jp2", {"irreversible": True, "quality_layers": [5]}),
    "tiff jpeg": ("a.tif", {"compression": "jpeg", "quality": 95}),
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    image = photo(*size)
    file, options = LOSSLESS[name]
    Image.fromarray(image).save(tmp_path / file, **options)
    assert np.array_equal(read_image(tmp_path / file), image)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", LOSSY)
def test_lossy(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    image = photo(*size)
    file, options = LOSSY[name]
    Image.fromarray(image).save(tmp_path / file, **options)
    assert np.abs(read_image(tmp_path / file).astype(float) - image).mean() < 12


def test_every_suffix_is_among_them() -> None:
    tried = {Path(file).suffix for file, _ in (*LOSSLESS.values(), *LOSSY.values())}
    assert tried | {".pgm", ".heic", ".heif"} == set(SUFFIXES)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("file", ["a.png", "a.bmp", "a.pgm", "a.tif", "a.jp2", "a.webp"])
def test_grey(tmp_path: Path, file: str, size: tuple[int, int]) -> None:
    grey = photo(*size)[..., 1]
    Image.fromarray(grey).save(tmp_path / file, **({"lossless": True} if file == "a.webp" else {}))
    assert np.array_equal(read_image(tmp_path / file), np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("colours", [2, slow(4), slow(16), 256])
@pytest.mark.parametrize("file", ["a.png", "a.bmp", "a.tif"])
def test_palettes(tmp_path: Path, file: str, colours: int, size: tuple[int, int]) -> None:
    palette = Image.fromarray(photo(*size)).quantize(colours)
    options = {"bits": colours.bit_length() - 1} if file == "a.png" else {}
    palette.save(tmp_path / file, **options)
    assert np.array_equal(read_image(tmp_path / file), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize(
    "options", [{}, {"compression": "group3"}, {"compression": "group4"}, {"compression": "packbits"}], ids=str
)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_two_levels(tmp_path: Path, options: dict[str, str], size: tuple[int, int]) -> None:
    levels = Image.fromarray(photo(*size)).convert("1")
    for file in ("a.tif",) if options else ("a.tif", "a.png", "a.bmp"):
        levels.save(tmp_path / file, **options)
        assert np.array_equal(read_image(tmp_path / file)[..., 0], 255 * np.asarray(levels).astype(np.uint8))


@pytest.mark.parametrize("width", [12, 101, 300])
@pytest.mark.parametrize(
    ("bits", "masks"), [(16, (0xF800, 0x07E0, 0x001F)), (16, (0x7C00, 0x03E0, 0x001F)), (16, None)]
)
def test_bmp_of_16_bits_a_pixel(tmp_path: Path, bits: int, masks: tuple[int, ...] | None, width: int) -> None:
    row = (2 * width + 3) // 4 * 4
    header = struct.pack("<IiiHHIIiiII", 40, width, 5, 1, bits, 3 if masks else 0, 5 * row, 0, 0, 0, 0)
    table = struct.pack("<III", *masks) if masks else b""
    start = 14 + len(header) + len(table)
    pixels = (struct.pack("<H", 0x001F) * width).ljust(row, b"\0") * 5
    (tmp_path / "a.bmp").write_bytes(
        b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + table + pixels
    )
    image = read_image(tmp_path / "a.bmp")
    assert image.shape == (5, width, 3) and (image == (0, 0, 255)).all()


def deep_tiff(path: Path) -> None:
    """16-bit RGB, uncompressed, written by hand: Pillow cannot."""
    width, height = 300, 20
    bits = 8 + 2 + 10 * 12 + 4
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2),
               (273, 4, 1, bits + 6), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, 6 * width * height),
               (284, 3, 1, 1)]  # fmt: skip
    data = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
    data += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    path.write_bytes(data + struct.pack("<3H", 16, 16, 16) + bytes(6 * width * height))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_16_bits_a_sample_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    deep = Image.fromarray(photo(*size)[..., 0].astype(np.uint16) * 257)
    for file in ("a.png", "a.tif", "a.jp2", "a.pgm"):
        deep.save(tmp_path / file)
    deep.save(tmp_path / "lzw.tif", compression="tiff_lzw")
    Image.fromarray(photo(*size)[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    (tmp_path / "a.ppm").write_bytes(b"P6 %d %d 1023\n" % size + bytes(6 * size[0] * size[1]))
    deep_tiff(tmp_path / "rgb.tif")
    for path in tmp_path.iterdir():
        with pytest.raises(DataError, match="more than 8 bits"):
            read_image(path)


def test_fewer_levels_than_256_in_a_ppm(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6 2 1 3\n" + bytes([0, 1, 2, 3, 3, 3]))
    assert read_image(tmp_path / "a.ppm").tolist() == [[[0, 85, 170], [255, 255, 255]]]


def test_jpeg_2000_of_more_bits_in_colour(tmp_path: Path) -> None:
    Image.fromarray(photo(40, 50)).save(tmp_path / "a.jp2")
    data = bytearray((tmp_path / "a.jp2").read_bytes())
    at = data.index(b"\xff\x4f\xff\x51") + 42
    data[at : at + 9 : 3] = [11, 11, 11]
    (tmp_path / "a.jp2").write_bytes(data)
    with pytest.raises(DataError, match="more than 8 bits"):
        read_image(tmp_path / "a.jp2")


def test_avif_of_ten_bits(tmp_path: Path) -> None:
    Image.fromarray(photo(40, 50)).save(tmp_path / "a.avif")
    data = bytearray((tmp_path / "a.avif").read_bytes())
    with Image.open(tmp_path / "a.avif") as image:
        assert not is_deep(image, bytes(data))
        data[data.index(b"av1C") + 6] |= 0x40
        # Pillow neither writes such a file nor reads it where the pixels say otherwise.
        assert is_deep(image, bytes(data))


# --- other formats ----------------------------------------------------------------------------------------------------

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 30 20
%%EndComments
(/etc/passwd) (r) file
showpage
%%EOF
"""


@pytest.mark.parametrize("name", ["a.eps", "a.png", "a.jpg"])
def test_what_pillow_hands_to_another_program_is_not_opened(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> None:
        pytest.fail("opened")

    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "_open", opened)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", opened)
    (tmp_path / name).write_bytes(EPS)
    for look in (read_image, image_size):
        with pytest.raises(DataError, match="is not an image of a format"):
            look(tmp_path / name)


@pytest.mark.parametrize("format", ["GIF", "ICO", "TGA", "PCX", "SGI", "ICNS", "QOI"])
def test_formats_that_are_not_named_are_not_opened(tmp_path: Path, format: str) -> None:
    Image.fromarray(photo(64, 64)).save(tmp_path / "a.png", format=format)
    with pytest.raises(DataError, match="is not an image of a format"):
        read_image(tmp_path / "a.png")


# --- EXIF -------------------------------------------------------------------------------------------------------------


def exif_block(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """An EXIF block of (tag, type, count, four bytes)."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    body = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0" + mark + struct.pack(f"{order}IH", 8, len(entries)) + body + bytes(4)


def turned(orientation: int) -> tuple[int, int, int, bytes]:
    return (0x0112, 3, 1, struct.pack("<HH", orientation, 0))


SLOPPY = {
    "float in Make": (0x010F, 11, 1, struct.pack("<f", 1.5)),
    "text in YCbCrCoefficients": (0x0211, 2, 3, b"abc\0"),
    "text in XResolution": (0x011A, 2, 4, b"abcd"),
    "rational far away": (0x011A, 5, 1, struct.pack("<I", 10**9)),
    "thousands of bytes": (0x927C, 7, 10**6, struct.pack("<I", 20)),
    "unknown type": (0x0131, 77, 9, b"abcd"),
    "Exif IFD nowhere": (0x8769, 4, 1, struct.pack("<I", 10**9)),
    "GPS IFD is text": (0x8825, 2, 4, b"gps\0"),
}


@pytest.mark.parametrize("sloppy", SLOPPY)
@pytest.mark.parametrize("file", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_a_sloppy_tag_beside_the_orientation(tmp_path: Path, file: str, sloppy: str) -> None:
    options = {"lossless": True} if file == "a.webp" else {}
    entries = sorted([turned(6), SLOPPY[sloppy]])
    if file == "a.tif":
        with_tag = Image.Exif()
        with_tag[0x0112] = 6
        Image.fromarray(photo(40, 60)).save(tmp_path / file, exif=with_tag)
    else:
        Image.fromarray(photo(40, 60)).save(tmp_path / file, exif=exif_block(*entries), **options)
    image = read_image(tmp_path / file)
    assert image.shape == (60, 40, 3)
    assert np.abs(image.astype(float) - np.rot90(photo(40, 60), -1)).mean() < 20


#: What turns a picture upright, by its orientation.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("file", ["a.png", "a.tif", "a.webp", "a.jp2", "a.avif"])
def test_orientations(tmp_path: Path, file: str, orientation: int) -> None:
    image = photo(40, 60)
    said = Image.Exif()
    said[0x0112] = orientation
    options = {"a.webp": {"lossless": True}, "a.avif": {"quality": 100, "subsampling": "4:4:4"}}.get(file, {})
    Image.fromarray(image).save(tmp_path / file, exif=said, **options)
    expected = image if file == "a.jp2" else UPRIGHT.get(orientation, UPRIGHT[1])(image)  # Pillow writes none there
    assert np.abs(read_image(tmp_path / file).astype(int) - expected).max() <= (10 if file == "a.avif" else 0)


def random_exif(rng: np.random.Generator) -> bytes:
    """A block with an orientation and tags of random types, counts and values, some bytes of it overwritten."""
    tags = rng.choice([0x010E, 0x010F, 0x011A, 0x0128, 0x0132, 0x0211, 0x0213, 0x8769, 0x8825, 0x927C, 0xC4A5], 4)
    entries = [(int(tag), int(rng.integers(0, 15)), int(rng.integers(0, 9)), rng.bytes(4)) for tag in tags]
    block = bytearray(exif_block(*sorted([turned(int(rng.integers(0, 10))), *entries]), order="<"))
    for _ in range(int(rng.integers(0, 4))):
        block[int(rng.integers(6, len(block)))] = int(rng.integers(256))
    return bytes(block)


def test_random_exif_blocks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    small = Image.fromarray(photo(8, 8))
    for number in range(300):
        block = random_exif(rng)
        small.save(tmp_path / "a.jpg", exif=block)
        assert read_image(tmp_path / "a.jpg").shape == (8, 8, 3), (number, block)


# --- colour -----------------------------------------------------------------------------------------------------------


def profile_of(name: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def wide_gamut() -> bytes:
    """The profile of sRGB with red and blue of its matrix swapped: no sRGB, whatever it calls itself."""
    data = bytearray(profile_of("sRGB"))
    count = struct.unpack_from(">I", data, 128)[0]
    where = {
        bytes(data[132 + 12 * i : 136 + 12 * i]): struct.unpack_from(">II", data, 136 + 12 * i) for i in range(count)
    }
    (red, size), (blue, _) = where[b"rXYZ"], where[b"bXYZ"]
    data[red : red + size], data[blue : blue + size] = data[blue : blue + size], data[red : red + size]
    return bytes(data)


@pytest.mark.parametrize("file", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_a_profile_that_is_not_srgb(tmp_path: Path, file: str) -> None:
    image = photo(40, 60)
    options = {"lossless": True} if file == "a.webp" else {"quality": 100, "subsampling": 0} if file == "a.jpg" else {}
    Image.fromarray(image).save(tmp_path / file, icc_profile=wide_gamut(), **options)
    said: list[str] = []
    swapped = read_image(tmp_path / file, said.append).astype(int)
    assert len(said) == 1 and said[0].endswith("to sRGB")
    assert np.abs(swapped - image[..., ::-1]).max() <= (40 if file == "a.jpg" else 3)


def test_profiles_that_leave_the_samples(tmp_path: Path) -> None:
    image = photo(40, 60)
    said: list[str] = []
    Image.fromarray(image).save(tmp_path / "a.png", icc_profile=profile_of("sRGB"))
    assert np.array_equal(read_image(tmp_path / "a.png", said.append), image) and not said
    for number, damaged in enumerate((b"no profile", profile_of("LAB"), wide_gamut()[:300])):
        Image.fromarray(image).save(tmp_path / "b.png", icc_profile=damaged)
        assert np.array_equal(read_image(tmp_path / "b.png", said.append), image)
        assert len(said) == number + 1 and "ignored" in said[-1]


def png_with_gamma(path: Path, image: np.ndarray, gamma: int) -> None:
    import zlib

    written = io.BytesIO()
    Image.fromarray(image).save(written, "PNG")
    body = b"gAMA" + struct.pack(">I", gamma)
    data = written.getvalue()
    path.write_bytes(data[:33] + struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body)) + data[33:])


def test_gamma(tmp_path: Path) -> None:
    image = photo(40, 60)
    said: list[str] = []
    png_with_gamma(tmp_path / "srgb.png", image, 45455)
    assert np.array_equal(read_image(tmp_path / "srgb.png", said.append), image) and not said
    png_with_gamma(tmp_path / "linear.png", image, 100000)
    linear = read_image(tmp_path / "linear.png", said.append)
    assert said == ["gamma 1 to sRGB"]
    assert np.array_equal(linear, np.round(255 * (image / 255) ** (1 / 2.2)).astype(np.uint8))


# --- HEIC -------------------------------------------------------------------------------------------------------------

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)


def test_heic_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for name in ("a.heic", "a.jpg"):
        (tmp_path / name).write_bytes(HEIC)
        with pytest.raises(DataError, match=re.escape(f"{name} is a HEIC image, which needs the package pillow-heif")):
            read_image(tmp_path / name)


@pytest.fixture
def pillow_heif() -> Any:
    return pytest.importorskip("pillow_heif", reason="the package pillow-heif is not installed")


def write_heic(pillow_heif: Any, path: Path, image: np.ndarray, **options: Any) -> None:
    """Write (height, width, 3) without loss."""
    height, width, _ = image.shape
    heic = pillow_heif.from_bytes("RGB", (width, height), image.tobytes())
    heic.save(path, quality=-1, chroma=444, matrix_coefficients=0, **options)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_heic(tmp_path: Path, size: tuple[int, int], pillow_heif: Any) -> None:
    write_heic(pillow_heif, tmp_path / "a.heic", photo(*size))
    assert np.array_equal(read_image(tmp_path / "a.heic"), photo(*size))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("registered", [False, True])
def test_heic_is_turned_once(
    tmp_path: Path, orientation: int, registered: bool, pillow_heif: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As cameras write it: turned by the container, said once more in EXIF."""
    if registered:
        for table in ("OPEN", "SAVE", "SAVE_ALL", "MIME", "EXTENSION"):
            monkeypatch.setattr(Image, table, dict(getattr(Image, table)))
        monkeypatch.setattr(Image, "ID", list(Image.ID))
        pillow_heif.register_heif_opener()
    image = photo(40, 60)
    write_heic(pillow_heif, tmp_path / "a.heic", image, exif=exif_block(turned(orientation)))
    assert ((tmp_path / "a.heic").read_bytes().count(b"irot") > 0) == (orientation in (3, 5, 6, 7, 8))
    assert np.array_equal(read_image(tmp_path / "a.heic"), UPRIGHT[orientation](image))


def test_heic_that_only_exif_calls_turned(tmp_path: Path, pillow_heif: Any) -> None:
    """By the standard (ISO/IEC 23008-12), and in every viewer, the container decides."""
    image, said = photo(40, 60), Image.Exif()
    said[0x0112] = 1
    write_heic(pillow_heif, tmp_path / "a.heic", image, exif=said.tobytes())
    data = (tmp_path / "a.heic").read_bytes()
    at = data.rindex(b"\x01\x12\0\x03\0\0\0\x01") + 9
    (tmp_path / "a.heic").write_bytes(data[:at] + b"\x06" + data[at + 1 :])
    assert pillow_heif.HeifImageFile(tmp_path / "a.heic").info["original_orientation"] == 6
    assert np.array_equal(read_image(tmp_path / "a.heic"), image)


def test_deep_heic(tmp_path: Path, pillow_heif: Any) -> None:
    image = photo(64, 80).astype(np.uint16) * 257
    pillow_heif.from_bytes("RGB;16", (80, 64), image.tobytes()).save(tmp_path / "deep.heic")
    with pytest.raises(DataError, match="more than 8 bits"):
        read_image(tmp_path / "deep.heic")
