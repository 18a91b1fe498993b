import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jointiq.bitstream.container import Container, pack_segments, pack_varint, unpack_segments, unpack_varint
from jointiq.bitstream.scan import MAX_POSITIONS
from jointiq.errors import BitstreamError

EXAMPLE = Container(b"\x01\x02\x03\x04", 1, 300, 200, 0xDEADBEEF, b"z" * 12, b"y" * 130)


def seal(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "little")


def test_layout_byte_by_byte():
    data = EXAMPLE.pack()
    assert data[:3] == b"JIQ"
    assert data[3] == 1
    assert data[4:8] == b"\x01\x02\x03\x04"
    assert data[8] == 1
    assert data[9:11] == bytes([0xAC, 0x02])  # 300 = 0b10_0101100
    assert data[11:13] == bytes([0xC8, 0x01])  # 200
    assert data[13] == 12
    assert data[14:16] == bytes([0x82, 0x01])  # 130
    assert data[16:20] == bytes([0xEF, 0xBE, 0xAD, 0xDE])
    assert data[20:32] == b"z" * 12
    assert data[32:162] == b"y" * 130
    assert data[162:] == zlib.crc32(data[:162]).to_bytes(4, "little")
    assert len(data) == 166 and EXAMPLE.payload_bytes == 142


@settings(max_examples=100, deadline=None)
@given(
    st.builds(
        Container,
        fingerprint=st.binary(min_size=4, max_size=4),
        scan=st.integers(0, 255),
        height=st.integers(1, 8192),
        width=st.integers(1, 8192),
        latents_crc=st.integers(0, 2**32 - 1),
        z=st.binary(max_size=300),
        y=st.binary(max_size=300),
    )
)
def test_round_trip(container):
    assert Container.unpack(container.pack()) == container


def test_each_truncation_is_an_error():
    data = EXAMPLE.pack()
    for length in range(len(data)):
        with pytest.raises(BitstreamError):
            Container.unpack(data[:length])


def test_each_flipped_bit_is_an_error():
    data = EXAMPLE.pack()
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError):
            Container.unpack(bytes(damaged))


def test_bytes_at_the_end_are_an_error():
    with pytest.raises(BitstreamError):
        Container.unpack(EXAMPLE.pack() + b"\0")
    with pytest.raises(BitstreamError, match="do not add up"):
        Container.unpack(seal(EXAMPLE.pack()[:-4] + b"\0"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a .jiq file"),
        (b"JIQ\x03" + bytes(100), "version 3"),
        (b"JIQ\x01", "truncated"),
    ],
)
def test_foreign_files(data, message):
    with pytest.raises(BitstreamError, match=message):
        Container.unpack(data)


@pytest.mark.parametrize(
    ("height", "width"), [(0, 5), (5, 0), (8193, 8192), (1, 16 * MAX_POSITIONS + 1), (2**34, 2**34)]
)
def test_impossible_sizes(height, width):
    with pytest.raises(BitstreamError, match="impossible image size"):
        Container.unpack(Container(b"abcd", 0, height, width, 0, b"", b"").pack())


@pytest.mark.parametrize("tenths", [10, 127, 128, 1000])
def test_a_quality_makes_version_2(tenths):
    container = replace(EXAMPLE, tenths=tenths)
    data = container.pack()
    assert data[3] == 2 and EXAMPLE.pack()[3] == 1
    assert len(data) - len(EXAMPLE.pack()) == (1 if tenths < 128 else 2)
    assert Container.unpack(data) == container


@pytest.mark.parametrize("tenths", [0, 9, 1001, 2**20])
def test_impossible_qualities(tenths):
    with pytest.raises(BitstreamError, match="impossible quality"):
        Container.unpack(replace(EXAMPLE, tenths=tenths).pack())


def test_a_header_that_never_ends():
    for body in (b"JIQ\x01abcd\x00" + b"\xff" * 40, b"JIQ\x01abcd\x00" + b"\x80" * 8):
        with pytest.raises(BitstreamError):
            Container.unpack(seal(body))


@given(st.integers(0, 2**35 - 1), st.binary(max_size=4))
def test_varints_round_trip(number, tail):
    packed = pack_varint(number)
    assert len(packed) == max(1, -(-number.bit_length() // 7))
    assert unpack_varint(b"ab" + packed + tail, 2) == (number, 2 + len(packed))


def test_varints_that_end_early_or_never():
    for data in (b"", b"\x80", b"\x80\x80\x80\x80\x80\x00", b"\xff" * 6):
        with pytest.raises(BitstreamError):
            unpack_varint(data, 0)


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_segments_come_back(segments):
    assert unpack_segments(pack_segments(segments), len(segments)) == segments


def test_one_segment_is_itself():
    assert pack_segments([b"abc"]) == b"abc" and pack_segments([]) == b""


@pytest.mark.parametrize(("data", "count"), [(b"x", 0), (b"\x05ab", 2), (b"", 2), (b"\x80", 3), (b"\x01\x05abc", 3)])
def test_segments_that_do_not_add_up(data, count):
    with pytest.raises(BitstreamError):
        unpack_segments(data, count)
