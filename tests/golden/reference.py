"""A decoder of ``.jiq`` latents in plain Python integers, written from docs/format.md and sharing no code with ``src``.

Slow, and meant to be: it is the check that the page says enough.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

TOP = (1 << 23) - 1
TOTAL = 1 << 46


def clamp(x: int, low: int, high: int) -> int:
    return max(low, min(high, x))


def fix(v: int) -> int:
    return clamp(v * 4096, -TOP, TOP)


def leaky(values: list[int]) -> list[int]:
    return [max(a, a >> 3) for a in values]


class Model:
    """The integers of a model file."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, "np") as file:
            self.config: dict[str, Any] = json.loads(file.metadata()["config"])
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self.cdf, self.exp, self.inv, self.prob = (
            self.tensors[f"tables.{name}"].tolist()
            for name in ("normal_cdf", "exp", "inverse_sigma", "decision_probabilities")
        )
        edges = [math.ceil(65536 / (1 + math.exp(-math.log(32767) * (2 * i / 512 - 1)))) for i in range(1, 512)]
        self.level = np.searchsorted(edges, np.arange(65536), side="right").tolist()

    def layer(self, name: str) -> Layer:
        return Layer(*(self.tensors[f"exact.{name}.{part}"] for part in ("weight", "bias", "shift", "fraction_bits")))

    def has(self, name: str) -> bool:
        return f"exact.{name}.weight" in self.tensors


class Layer:
    def __init__(self, weight: np.ndarray, bias: np.ndarray, shift: np.ndarray, fraction_bits: np.ndarray) -> None:
        self.weight, self.bias = weight.astype(np.int64), bias.tolist()
        self.s = [int(k) + 12 - int(fraction_bits[0]) for k in shift]

    def finish(self, sums: list[int]) -> list[int]:
        return [
            clamp((2 * (total + b) + (1 << s)) >> (s + 1), -TOP, TOP)
            for total, b, s in zip(sums, self.bias, self.s, strict=True)
        ]

    def __call__(self, a: list[int]) -> list[int]:
        return self.finish((self.weight @ np.array(a, dtype=np.int64)).tolist())


class Decisions:
    """The rANS decoder."""

    def __init__(self, data: bytes, model: Model) -> None:
        assert len(data) >= 8 and len(data) % 4 == 0
        self.words = np.frombuffer(data, "<u4").tolist()
        self.x = self.words[0] + (self.words[1] << 32)
        self.next = 2
        self.model = model

    def bit(self, table: int) -> int:
        p = self.model.prob[table]
        q = self.x & 65535
        bit = int(q < p)
        start, width = (0, p) if bit else (p, 65536 - p)
        self.x = width * (self.x >> 16) + q - start
        if self.x < 1 << 31:
            self.x = (self.x << 32) + self.words[self.next]
            self.next += 1
        return bit

    def decide(self, ones: int, zeros: int) -> int:
        return self.bit(self.model.level[((ones + 1) << 16) // (ones + zeros + 2)])

    def finish(self) -> None:
        assert self.bit(511) == 1 and self.bit(511) == 1
        assert self.x == 1 << 31 and self.next == len(self.words)


class Symbol:
    """One symbol: its mixture, and what is known of its value so far."""

    def __init__(self, model: Model, logits: list[int], means: list[int], log_sigmas: list[int]) -> None:
        powers = [model.exp[min((max(logits) - logit) >> 4, 4095)] for logit in logits]
        self.weights = [(power << 16) // sum(powers) for power in powers]
        self.weights[0] += 65536 - sum(self.weights)
        self.means = means
        self.inv = [model.inv[clamp((s + 9041 + 32) >> 6, 0, 629)] for s in log_sigmas]
        self.centre = (sum(w * m for w, m in zip(self.weights, means, strict=True)) + (1 << 27)) >> 28
        self.cdf = model.cdf
        self.v = 0

    def below(self, offset: int) -> int:
        total = 0
        for weight, mean, inv in zip(self.weights, self.means, self.inv, strict=True):
            x = clamp((self.centre + offset) * 4096 - 2048 - mean, -(2**27) + 1, 2**27 - 1)
            total += weight * self.cdf[clamp((x * inv + (1 << 25)) >> 26, -8192, 8192) + 8192]
        return total

    def tail(self, k: int) -> int:
        return TOTAL - self.below(k) if self.positive else self.below(1 - k)


def decode_symbols(symbols: list[Symbol], decisions: Decisions) -> list[int]:
    active = []
    for symbol in symbols:
        mass = symbol.below(1) - symbol.below(0)
        if not decisions.decide(mass, TOTAL - mass):
            active.append(symbol)
    nonzero = active
    for symbol in nonzero:
        symbol.positive = bool(decisions.decide(TOTAL - symbol.below(1), symbol.below(0)))
        symbol.exponent = 0
    for j in range(24):
        larger = []
        for symbol in active:
            ones = symbol.tail(2 << j)
            if decisions.decide(ones, symbol.tail(1 << j) - ones):
                symbol.exponent += 1
                larger.append(symbol)
        active = larger
    for symbol in nonzero:
        symbol.v = 1 << symbol.exponent
    for b in range(22, -1, -1):
        for symbol in nonzero:
            if symbol.exponent > b:
                low, middle, end = symbol.v, symbol.v + (1 << b), symbol.v + (2 << b)
                ones = symbol.tail(middle) - symbol.tail(end)
                symbol.v += decisions.decide(ones, symbol.tail(low) - symbol.tail(middle)) << b
    return [symbol.centre + (symbol.v if symbol.v == 0 or symbol.positive else -symbol.v) for symbol in symbols]


def deconv(layer: Layer, a: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    channels, height, width = a.shape
    weight = layer.weight.reshape(-1, channels, 5, 5)
    sums = np.zeros((len(weight), 2 * height + 4, 2 * width + 4), np.int64)
    for i in range(height):
        for j in range(width):
            sums[:, 2 * i : 2 * i + 5, 2 * j : 2 * j + 5] += np.tensordot(weight, a[:, i, j], (1, 0))
    return np.maximum(finish_map(layer, sums[:, 2 : 2 + size[0], 2 : 2 + size[1]]), 0)


def conv(layer: Layer, a: np.ndarray) -> np.ndarray:
    channels, height, width = a.shape
    weight = layer.weight.reshape(-1, channels, 3, 3)
    padded = np.pad(a, ((0, 0), (1, 1), (1, 1)))
    sums = sum(
        np.tensordot(weight[:, :, u, v], padded[:, u : u + height, v : v + width], (1, 0))
        for u in range(3)
        for v in range(3)
    )
    return finish_map(layer, sums)


def finish_map(layer: Layer, sums: np.ndarray) -> np.ndarray:
    rows = [layer.finish(column) for column in sums.reshape(len(sums), -1).T.tolist()]
    return np.array(rows, dtype=np.int64).T.reshape(sums.shape)


def hyper_synthesis(model: Model, z_hat: np.ndarray, sizes: list[tuple[int, int]]) -> np.ndarray:
    a = np.clip(z_hat * 4096, -TOP, TOP)
    a = deconv(model.layer("h_s.deconv0"), a, sizes[5])
    a = deconv(model.layer("h_s.deconv1"), a, sizes[4])
    a = conv(model.layer("h_s.conv"), a)
    if model.config["hyper_exp"]:
        index = np.clip(1792 - ((a + 8) >> 4), 0, 4095)
        a = (8773 * np.array(model.exp)[index] + 1024) >> 11
    return a


def known(scan: str, r: int, c: int, width: int) -> list[tuple[int, int]]:
    return [
        (row, column)
        for row in range(r + 1)
        for column in range(width)
        if ((column < c) if row == r else (scan == "raster" or column < c + 2 * (r - row)))
    ]


PLACES = [(0, 0), (1, 1), (0, 1), (1, 0)]


def known_weights(model: Model, r: int, c: int, height: int, width: int) -> dict[tuple[int, int], int]:
    """Where the weight of each position that c''' of (r, c) is made of stands in a row of the table."""
    K = model.config["K"]
    if model.config["scan"] != "quarters":
        return {
            (row, column): min(r - row, K) * (2 * K + 1) + clamp(column - c, -K, K) + K
            for row, column in known(model.config["scan"], r, c, width)
        }
    R = (K + 1) // 2
    weights = {}
    for row in range(height):
        for column in range(width):
            d, e = row // 2 - r // 2, column // 2 - c // 2
            near = abs(d) <= R and abs(e) <= R
            weights[row, column] = (d + R) * (2 * R + 1) + e + R if near else (2 * R + 1) ** 2
    return weights


def global_context(
    model: Model, v: dict[tuple[int, int], list[int]], r: int, c: int, size: tuple[int, int]
) -> list[int]:
    M = model.config["M"]
    positions = known_weights(model, r, c, *size)
    if len(positions) < model.config["min_known"] or not v:
        return [0] * (2 * M)
    table = model.tensors["exact.global_context.weights"]
    means, deviations = [], []
    for m in range(M):
        A = B = C = D = 0
        for place, index in positions.items():
            w, value = int(table[m, index]), v[place][m]
            A, B, C, D = A + w, B + w * w, C + w * value, D + w * value * value
        mean = (C << 12) // A
        variance = max(0, (D << 24) // A - mean * mean)
        denominator = max((1 << 28) - ((B << 28) // A) // A, 1 << 18)
        means.append(clamp((mean + 32) >> 6, -TOP, TOP))
        deviations.append(clamp(math.isqrt(((variance >> 12) << 22) // denominator) << 3, -TOP, TOP))
    return means + deviations


def values_of_context(transform: Layer, y: list[int]) -> list[int]:
    return [clamp(a, -(1 << 14) + 1, (1 << 14) - 1) for a in transform([fix(a) for a in y])]


def refine(blocks: list[tuple[Layer, Layer]], p: list[int], context: list[int]) -> list[int]:
    for reduce, expand in blocks:
        p = [clamp(a + b, -TOP, TOP) for a, b in zip(p, expand(leaky(reduce(p + context))), strict=True)]
    return p


def blocks_of(model: Model, prefix: str) -> list[tuple[Layer, Layer]]:
    return [
        (model.layer(f"{prefix}reduce{i}"), model.layer(f"{prefix}expand{i}"))
        for i in range(2)
        if model.has(f"{prefix}reduce{i}")
    ]


def symbols_of(model: Model, p: list[int], channels: int) -> list[Symbol]:
    kinds, symbols = np.array(p).reshape(-1, model.config["G"], channels), []
    for m in range(channels):
        logits = kinds[0, :, m].tolist() if model.config["G"] > 1 else [0]
        symbols.append(Symbol(model, logits, kinds[-2, :, m].tolist(), kinds[-1, :, m].tolist()))
    return symbols


def window_of(grid: np.ndarray, places: list[tuple[int, int]]) -> list[int]:
    """Values of (channels, height, width) at each place, zero outside."""
    _, height, width = grid.shape
    values: list[int] = []
    for row, column in places:
        inside = 0 <= row < height and 0 <= column < width
        values += grid[:, row, column].tolist() if inside else [0] * len(grid)
    return values


def steps(scan: str, height: int, width: int) -> list[list[tuple[int, int]]]:
    if scan == "raster":
        return [[(r, c)] for r in range(height) for c in range(width)]
    waves = ([(r, t - 2 * r) for r in range(height) if 0 <= t - 2 * r < width] for t in range(width + 2 * height))
    return [wave for wave in waves if wave]


def decode_y(model: Model, data: bytes, c_prime: np.ndarray) -> np.ndarray:
    decisions = Decisions(data, model)
    decode = decode_quarters if model.config["scan"] == "quarters" else decode_positions
    y = decode(model, decisions, c_prime)
    decisions.finish()
    return y


def decode_positions(model: Model, decisions: Decisions, c_prime: np.ndarray) -> np.ndarray:
    config, M = model.config, model.config["M"]
    _, height, width = c_prime.shape
    window, hidden, preliminary = (model.layer(f"estimator.{name}") for name in ("window", "hidden", "preliminary"))
    blocks = blocks_of(model, "estimator.")
    transform = model.layer("global_context.transform") if config["global_context"] else None
    y, v = np.zeros(c_prime.shape, np.int64), {}
    for step in steps(config["scan"], height, width):
        symbols = []
        for r, c in step:
            places = [(row, column) for row in range(r - 3, r + 1) for column in range(c - 2, c + 2)]
            x = window_of(c_prime, places) + [fix(a) for a in window_of(y, places[:14])]
            context = [] if transform is None else global_context(model, v, r, c, (height, width))
            p = preliminary(leaky(hidden(leaky(window(x)))))
            symbols += symbols_of(model, refine(blocks, p, context), M)
        values = decode_symbols(symbols, decisions)
        for index, (r, c) in enumerate(step):
            y[:, r, c] = values[index * M : (index + 1) * M]
            if transform is not None:
                v[r, c] = values_of_context(transform, y[:, r, c].tolist())
    return y


def decode_quarters(model: Model, decisions: Decisions, c_prime: np.ndarray) -> np.ndarray:
    M, (_, height, width) = model.config["M"], c_prime.shape
    window, hidden = model.layer("estimator.window"), model.layer("estimator.hidden")
    preliminary = [model.layer(f"estimator.group{g}_preliminary") for g in range(8)]
    blocks = [blocks_of(model, f"estimator.group{g}_") for g in range(8)]
    transform = model.layer("global_context.transform") if model.config["global_context"] else None
    y = np.zeros(c_prime.shape, np.int64)
    most = max(1, 2048 // ((width + 1) // 2))
    for s in range(8):
        known = y.copy()
        v = {}
        if s and transform is not None:
            v = {(r, c): values_of_context(transform, known[:, r, c].tolist()) for r, c in np.ndindex(height, width)}
        for top in range(0, (height + 1) // 2, most):
            places, symbols = [], []
            for p, (row, column) in enumerate(PLACES):
                g = (2 * p - s) % 8
                for r in range(2 * top + row, min(height, 2 * (top + most)), 2):
                    for c in range(column, width, 2):
                        around = [(i, j) for i in range(r - 1, r + 2) for j in range(c - 1, c + 2)]
                        x = window_of(c_prime, around)
                        for other in range(1, 8):
                            x += [fix(a) for a in window_of(known, around)] if other == s else [0] * (9 * M)
                        x += [4096 if case == 4 * s + p else 0 for case in range(32)]
                        context = [] if transform is None else global_context(model, v, r, c, (height, width))
                        a = preliminary[g](leaky(hidden(leaky(window(x)))))
                        channels = range(g, M, 8)
                        symbols += symbols_of(model, refine(blocks[g], a, context), len(channels))
                        places += [(m, r, c) for m in channels]
            for place, value in zip(places, decode_symbols(symbols, decisions), strict=True):
                y[place] = value
    return y


def prior(model: Model, quality: int | None) -> list[int]:
    table = model.tensors["exact.z_prior.log_sigma"].tolist()
    if quality is None:
        return table
    i, e = divmod((quality - 10) * (len(table) - 1), 990)
    if e == 0:
        return table[i]
    return [(2 * (low * (990 - e) + high * e) + 990) // 1980 for low, high in zip(table[i], table[i + 1], strict=True)]


def decode_z(model: Model, data: bytes, size: tuple[int, int], quality: int | None) -> np.ndarray:
    log_sigmas = prior(model, quality)
    symbols = [Symbol(model, [0], [0], [s]) for s in log_sigmas for _ in range(size[0] * size[1])]
    decisions = Decisions(data, model)
    values = decode_symbols(symbols, decisions)
    decisions.finish()
    return np.array(values).reshape(len(log_sigmas), *size)


def leb128(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (data[position] & 127) << shift
        position, shift = position + 1, shift + 7
        if data[position - 1] < 128:
            return number, position


def decode(model: Model, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """y_hat (M, h, w) and z_hat (N, ...) of a whole file."""
    assert data[:4] in (b"JIQ\x01", b"JIQ\x02")
    assert (data[3] == 2) == (model.config.get("rates") == "continuous")
    assert zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little")
    assert data[8] == {"raster": 0, "wavefront": 1, "quarters": 3}[model.config["scan"]]
    position = 9
    numbers = []
    for _ in range(3 + data[3]):
        number, position = leb128(data, position)
        numbers.append(number)
    height, width, z_length, y_length = numbers[:4]
    quality = numbers[4] if data[3] == 2 else None
    latents_crc = int.from_bytes(data[position : position + 4], "little")
    position += 4
    z, y = data[position : position + z_length], data[position + z_length : position + z_length + y_length]
    assert position + z_length + y_length + 4 == len(data)
    sizes = [(height, width)]
    for _ in range(6):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    z_hat = decode_z(model, z, sizes[6], quality)
    y_hat = decode_y(model, y, hyper_synthesis(model, z_hat, sizes))
    assert zlib.crc32(z_hat.astype("<i4").tobytes() + y_hat.astype("<i4").tobytes()) == latents_crc
    return y_hat, z_hat
