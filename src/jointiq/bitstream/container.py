"""The ``.jiq`` file: a small header, the two entropy-coded segments, a checksum. See docs/format.md.

bytes   field
3       magic "JIQ"
1       format version
4       fingerprint of the model
1       scan (0 raster, 1 wavefront, 2 parallel, 3 quarters)
1-5     image height          LEB128
1-5     image width           LEB128
1-5     length of segment z   LEB128
1-5     length of segment y   LEB128
1-2     quality in tenths     LEB128, format version 2 only
4       CRC-32 of the decoded latents, little-endian
...     segment z, segment y
4       CRC-32 of everything before it, little-endian
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from jointiq.bitstream.scan import MAX_POSITIONS
from jointiq.errors import BitstreamError, ConfigError

MAGIC = b"JIQ"
#: Of files of models with one rate, and of those that name a quality.
VERSION, VERSION_WITH_QUALITY = 1, 2
#: Qualities of the smallest and of the largest files; files hold tenths.
LOWEST, HIGHEST, TENTHS = 1, 100, 10
#: What a model of all rates codes at where no quality is named.
DEFAULT_QUALITY = 50.0
FINGERPRINT_BYTES = 4
_FIXED = len(MAGIC) + 1 + FINGERPRINT_BYTES + 1
_CRC_BYTES = 4
# Side of the square of pixels that one position of y stands for.
POSITION_SIDE = 16
SIZES = f"1x1 pixels to {MAX_POSITIONS} blocks of {POSITION_SIDE}x{POSITION_SIDE}, 67 megapixels"


def positions(height: int, width: int) -> int:
    """Return the number of positions in the latent grid of an image."""
    return -(-height // POSITION_SIDE) * -(-width // POSITION_SIDE)


@dataclass(frozen=True)
class Container:
    """The contents of a ``.jiq`` file.

    Attributes:
        fingerprint: first four bytes of the hash of the model that wrote it.
        scan: code of the order of coding.
        height, width: of the image, in pixels.
        latents_crc: CRC-32 of the decoded latents.
        z, y: the entropy-coded segments.
        tenths: quality of a model of all rates, in tenths; None: a model of one rate.
    """

    fingerprint: bytes
    scan: int
    height: int
    width: int
    latents_crc: int
    z: bytes
    y: bytes
    tenths: int | None = None

    @property
    def version(self) -> int:
        """Version of the format."""
        return VERSION if self.tenths is None else VERSION_WITH_QUALITY

    @property
    def payload_bytes(self) -> int:
        """Bytes of the entropy-coded segments."""
        return len(self.z) + len(self.y)

    def pack(self) -> bytes:
        """Return the bytes of the file."""
        header = MAGIC + bytes([self.version]) + self.fingerprint + bytes([self.scan])
        quality = () if self.tenths is None else (self.tenths,)
        header += b"".join(map(pack_varint, (self.height, self.width, len(self.z), len(self.y), *quality)))
        body = header + self.latents_crc.to_bytes(_CRC_BYTES, "little") + self.z + self.y
        return body + zlib.crc32(body).to_bytes(_CRC_BYTES, "little")

    @classmethod
    def unpack(cls, data: bytes) -> Container:
        """Parse the bytes of a file.

        Raises:
            BitstreamError: not a ``.jiq`` file, another version, truncated, damaged, or an impossible size or quality.
        """
        if data[: len(MAGIC)] != MAGIC:
            raise BitstreamError("not a .jiq file (its first bytes are not 'JIQ')" if data else "the file is empty")
        if len(data) < _FIXED + 4 + 2 * _CRC_BYTES:
            raise BitstreamError("the file is truncated inside its header")
        version = data[len(MAGIC)]
        if version not in (VERSION, VERSION_WITH_QUALITY):
            known = f"{VERSION} and {VERSION_WITH_QUALITY}"
            raise BitstreamError(f"format version {version} is unknown; this program reads versions {known}")
        body, checksum = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
        if zlib.crc32(body) != int.from_bytes(checksum, "little"):
            raise BitstreamError("the file is truncated or damaged (its checksum does not match)")
        fingerprint = data[len(MAGIC) + 1 : _FIXED - 1]
        position = _FIXED
        numbers = []
        for _ in range(4 if version == VERSION else 5):
            number, position = unpack_varint(body, position)
            numbers.append(number)
        height, width, z_length, y_length, *quality = numbers
        if quality and not LOWEST * TENTHS <= quality[0] <= HIGHEST * TENTHS:
            raise BitstreamError(f"impossible quality {quality[0] / TENTHS:g}; allowed: {LOWEST} to {HIGHEST}")
        if height < 1 or width < 1 or positions(height, width) > MAX_POSITIONS:
            raise BitstreamError(f"impossible image size {width}x{height}; allowed: {SIZES}")
        start = position + _CRC_BYTES
        if start + z_length + y_length != len(body):
            raise BitstreamError("the segment lengths do not add up to the file")
        return cls(
            fingerprint,
            data[_FIXED - 1],
            height,
            width,
            int.from_bytes(body[position:start], "little"),
            body[start : start + z_length],
            body[start + z_length :],
            *quality,
        )


def require_quality(quality: object, key: str = "quality") -> float:
    """Return a quality, rounded to tenths.

    Args:
        key: its name in the error.

    Raises:
        ConfigError: not a number from 1 to 100.
    """
    if isinstance(quality, bool) or not isinstance(quality, int | float) or not LOWEST <= quality <= HIGHEST:
        raise ConfigError(key, quality, f"a number from {LOWEST} (smallest files) to {HIGHEST} (best pictures)")
    return round(quality * TENTHS) / TENTHS


def to_tenths(quality: float) -> int:
    """Return the number that stands for a quality in files."""
    return round(quality * TENTHS)


def pack_varint(number: int) -> bytes:
    """Encode a number as unsigned LEB128: seven bits a byte, lowest first, top bit set on all but the last byte."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def unpack_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the LEB128 number at ``position`` and the position after it.

    Raises:
        BitstreamError: the data ends inside it, or it takes more than five bytes.
    """
    number = 0
    for index in range(5):
        if position + index >= len(data):
            break
        byte = data[position + index]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return number, position + index + 1
    raise BitstreamError("the file is truncated or damaged inside its header")


def pack_segments(segments: list[bytes]) -> bytes:
    """Join byte strings: the lengths of all but the last (LEB128 each), then all of them."""
    return b"".join(pack_varint(len(segment)) for segment in segments[:-1]) + b"".join(segments)


def unpack_segments(data: bytes, count: int) -> list[bytes]:
    """Split the ``count`` byte strings that :func:`pack_segments` joined.

    Raises:
        BitstreamError: the lengths do not fit the data.
    """
    if count == 0:
        if data:
            raise BitstreamError("the file holds side information that its model does not have")
        return []
    lengths, position = [], 0
    for _ in range(count - 1):
        length, position = unpack_varint(data, position)
        lengths.append(length)
    lengths.append(len(data) - position - sum(lengths))
    if lengths[-1] < 0:
        raise BitstreamError("the lengths of the side information do not add up")
    segments = []
    for length in lengths:
        segments.append(data[position : position + length])
        position += length
    return segments
