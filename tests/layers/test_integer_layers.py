import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from jointiq.layers import integer_layers as fixed_point
from jointiq.layers.integer_layers import (
    ACTIVATION_MAX,
    EXACT_LIMIT,
    FRACTION_BITS,
    ONE,
    IntegerDeconv,
    IntegerLinear,
    integer_conv,
    leaky_relu_,
    to_fixed,
)


def big_integer_layer(layer, row):
    """What the module docstring says, in Python integers: clamp(floor((sum w a + b) / 2^(k + 12 - f) + 1/2))."""
    out = []
    for weights, bias, shift in zip(layer.weight.tolist(), layer.bias.tolist(), layer.shift.tolist(), strict=True):
        total = sum(int(w) * int(a) for w, a in zip(weights, row, strict=True)) + int(bias)
        bits = int(shift) + FRACTION_BITS - layer.fraction_bits
        rounded = (2 * total + (1 << bits)) >> (bits + 1)
        out.append(max(-ACTIVATION_MAX, min(ACTIVATION_MAX, rounded)))
    return out


def test_powers_of_two_are_exact():
    exponents = range(-60, 61)
    assert fixed_point.power_of_two(torch.tensor(exponents)).tolist() == [2.0**k for k in exponents]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    inputs=st.integers(1, 40),
    scale=st.sampled_from([1e-6, 1e-3, 0.1, 1.0, 30.0]),
    reach=st.sampled_from([3, 5000, ACTIVATION_MAX]),
    fraction_bits=st.sampled_from([6, FRACTION_BITS]),
)
def test_layer_equals_python_integers(seed, inputs, scale, reach, fraction_bits):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, inputs, generator=generator) * scale
    weight[0] = 0
    bias = torch.randn(5, generator=generator) * scale
    layer = IntegerLinear.quantise(weight, bias, fraction_bits)
    a = torch.randint(-reach, reach + 1, (4, inputs), generator=generator).double()
    assert layer(a).tolist() == [big_integer_layer(layer, row) for row in a.tolist()]


def test_extremes_equal_python_integers():
    layer = IntegerLinear.quantise(torch.tensor([[0.999, -0.999, 0.5], [1e-9, 0.0, 0.0]]), torch.tensor([100.0, -3.0]))
    a = torch.tensor([[ACTIVATION_MAX, -ACTIVATION_MAX, ACTIVATION_MAX], [0, 0, 0], [1, -1, 1]]).double()
    assert layer(a).tolist() == [big_integer_layer(layer, row) for row in a.tolist()]
    assert layer(a)[0, 0] == ACTIVATION_MAX


def test_rounds_half_up():
    layer = IntegerLinear(torch.tensor([[1.0]]), torch.tensor([0.0]), torch.tensor([1]))
    assert layer(torch.tensor([[-3], [-1], [1], [3]]).double()).flatten().tolist() == [-1, 0, 1, 2]


def test_order_of_the_inputs_is_of_no_consequence():
    torch.manual_seed(0)
    weight = torch.randn(20, 700) * torch.logspace(-3, 0, 700)
    layer = IntegerLinear.quantise(weight, torch.randn(20))
    a = torch.randint(-ACTIVATION_MAX, ACTIVATION_MAX, (30, 700)).double()
    order = torch.randperm(700)
    permuted = IntegerLinear(layer.weight[:, order], layer.bias, layer.shift)
    assert torch.equal(layer(a), permuted(a[:, order]))
    assert torch.equal(layer(a)[7:8], layer(a[7:8]))
    parts = layer.split(300, 400)
    assert torch.equal(layer.finish_(a[:, :300] @ parts[0] + a[:, 300:] @ parts[1]), layer(a))


def test_quantised_weights_are_close_and_within_13_bits():
    weight = torch.randn(8, 50) * torch.logspace(-4, 1, 8)[:, None]
    layer = IntegerLinear.quantise(weight, None)
    back = layer.weight / torch.ldexp(torch.ones(8, dtype=torch.float64), layer.shift)[:, None]
    assert ((back - weight).abs().amax(1) <= weight.abs().amax(1) / 2**12).all()
    assert layer.weight.abs().max() <= 1 << 13
    assert (layer.weight.abs().sum(1) * ACTIVATION_MAX < EXACT_LIMIT).all()


def test_wide_layers_give_up_precision_in_place_of_exactness():
    weight = torch.ones(1, 200_000)
    layer = IntegerLinear.quantise(weight, None)
    assert layer.shift[0] < 12
    a = torch.full((1, 200_000), ACTIVATION_MAX, dtype=torch.float64)
    assert layer(a).tolist() == [[ACTIVATION_MAX]]
    assert float(layer.accumulate(a)[0, 0]) == int(layer.weight.sum()) * ACTIVATION_MAX


def test_too_large_or_not_finite_is_refused():
    with pytest.raises(ValueError, match="too large"):
        IntegerLinear(torch.full((1, 1 << 20), 8192.0), torch.zeros(1), torch.zeros(1, dtype=torch.int32))
    with pytest.raises(ValueError, match="too large"):
        IntegerLinear.quantise(torch.full((1, 4), 1e9), None)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not finite"):
            IntegerLinear.quantise(torch.tensor([[bad]]), None)
        with pytest.raises(ValueError, match="not finite"):
            IntegerLinear.quantise(torch.tensor([[1.0]]), torch.tensor([bad]))


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 3)])
def test_convolutions_equal_the_float_ones_within_rounding(size):
    torch.manual_seed(1)
    a = to_fixed(torch.randint(-6, 7, (3, *size)))
    convolution = torch.nn.Conv2d(3, 4, 3, padding=1).double()
    integers = integer_conv(IntegerLinear.quantise(convolution.weight.flatten(1), convolution.bias), a, 3) / ONE
    expected = convolution(a[None] / ONE)[0]
    assert (integers - expected).abs().max() < 0.02

    transposed = torch.nn.ConvTranspose2d(3, 4, 5, stride=2, padding=2, output_padding=1).double()
    layer = IntegerLinear.quantise(transposed.weight.transpose(0, 1).flatten(1), transposed.bias)
    integers = IntegerDeconv(layer, 5)(a)
    expected = transposed(a[None] / ONE)[0]
    assert integers.shape == expected.shape
    assert (integers / ONE - expected).abs().max() < 0.02
    # The integers themselves: a float64 transposed convolution of integers this small is exact.
    total = F.conv_transpose2d(
        a[None], layer.weight.view(4, 3, 5, 5).transpose(0, 1), stride=2, padding=2, output_padding=1
    )
    assert torch.equal(integers, layer.finish_(total[0].permute(1, 2, 0).contiguous()).permute(2, 0, 1))


@pytest.mark.parametrize("strip", [1, 11, 30])
def test_strips_of_a_convolution_join_up(strip, monkeypatch):
    torch.manual_seed(2)
    layer = IntegerLinear.quantise(torch.randn(4, 3 * 9), torch.randn(4))
    a = to_fixed(torch.randint(-6, 7, (3, 7, 5)))
    whole = F.conv2d(a[None], layer.weight.view(4, 3, 3, 3), padding=1)[0]
    monkeypatch.setattr(fixed_point, "STRIP_POSITIONS", strip)
    expected = layer.finish_(whole.permute(1, 2, 0).contiguous()).permute(2, 0, 1)
    assert torch.equal(integer_conv(layer, a, 3), expected)


def test_leaky_relu_rounds_down():
    values = [-17, -16, -9, -8, -1, 0, 1, 9]
    assert leaky_relu_(torch.tensor(values).double()).tolist() == [v if v > 0 else v // 8 for v in values]


def test_to_fixed_clamps():
    assert to_fixed(torch.tensor([0, 3, -2048, 10**6, -(10**6)])).tolist() == [
        0,
        3 * ONE,
        -ACTIVATION_MAX,
        ACTIVATION_MAX,
        -ACTIVATION_MAX,
    ]
