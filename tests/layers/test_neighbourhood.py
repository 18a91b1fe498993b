import pytest
import torch
import torch.nn.functional as F

from jointiq.layers import neighbourhood
from jointiq.layers.integer_layers import ACTIVATION_MAX, LEAKY_SLOPE, ONE, leaky_relu_
from jointiq.layers.neighbourhood import IntegerNeighbourhoodPredictor, NeighbourhoodPredictor

CHANNELS = 4
SIZES = [(1, 1), (1, 6), (5, 2), (7, 6)]


def predictor():
    torch.manual_seed(0)
    made = NeighbourhoodPredictor(CHANNELS).double()
    with torch.no_grad():
        for layer in (*made.convs, made.linear):
            layer.weight.mul_(3)
    return made


def patches(features):
    """The 5x5 patch around every position: (C, h, w) -> (h * w, C, 5, 5), zeros outside of the map."""
    windows = F.unfold(features[None], 5, padding=2)[0].T
    return windows.reshape(-1, len(features), 5, 5)


def by_patches(model, features):
    """As the authors do it: every patch for itself."""
    x = patches(features)
    for layer, stride in zip(model.convs, (1, 2, 1), strict=True):
        x = F.leaky_relu(F.conv2d(x, layer.weight, layer.bias, stride=stride, padding=1), LEAKY_SLOPE)
    assert x.shape[-2:] == (3, 3)
    flat = x.permute(0, 2, 3, 1).flatten(1)
    parameters = flat @ model.linear.weight[:, :, 0, 0].T + model.linear.bias
    return parameters.T.reshape(-1, *features.shape[1:])


@pytest.mark.parametrize("size", SIZES)
def test_equals_the_network_on_every_patch(size):
    model, features = predictor(), torch.randn(CHANNELS, *size).double()
    with torch.no_grad():
        result = model(features[None].to(memory_format=torch.channels_last))[0]
        torch.testing.assert_close(result, by_patches(model, features), atol=1e-12, rtol=0)


def test_gradients_equal_those_of_the_network_on_every_patch():
    model, features = predictor(), torch.randn(CHANNELS, 6, 5).double().requires_grad_()
    inputs = [features, *model.parameters()]
    weight = torch.randn(2 * CHANNELS, 6, 5).double()
    ours = torch.autograd.grad((model(features[None])[0] * weight).sum(), inputs)
    theirs = torch.autograd.grad((by_patches(model, features) * weight).sum(), inputs)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_sees_five_by_five_positions():
    model, features = predictor(), torch.randn(1, CHANNELS, 9, 9).double().requires_grad_()
    model(features)[0, :, 4, 4].sum().backward()
    seen = features.grad[0].abs().sum(0) > 0
    assert seen[2:7, 2:7].all() and int(seen.sum()) == 25


def integers_by_patches(integers, features):
    """The integer network on every patch for itself, with strided windows."""
    x = patches(features)
    for name, stride in (("conv0", 1), ("conv1", 2), ("conv2", 1)):
        layer = integers.layers[name]
        windows = F.unfold(x, 3, padding=1, stride=stride).permute(0, 2, 1)
        side = round(windows.shape[1] ** 0.5)
        x = leaky_relu_(layer(windows)).permute(0, 2, 1).reshape(len(x), -1, side, side)
    return integers.layers["linear"](x.permute(0, 2, 3, 1).flatten(1))


@pytest.mark.parametrize("strip", [1, 13, 1000])
@pytest.mark.parametrize("size", SIZES)
def test_integers_equal_the_network_on_every_patch_in_strips_of_any_size(size, strip, monkeypatch):
    monkeypatch.setattr(neighbourhood, "STRIP_POSITIONS", strip)
    integers = IntegerNeighbourhoodPredictor.quantise(predictor())
    torch.manual_seed(1)
    features = torch.randint(-5 * ONE, 5 * ONE, (CHANNELS, *size)).double()
    rows = list(integers.rows(features))
    assert [row.shape for row in rows] == [(size[1], 2 * CHANNELS)] * size[0]
    assert torch.equal(torch.cat(rows), integers_by_patches(integers, features))


def test_integers_are_near_the_floats():
    model = predictor()
    features = torch.randn(CHANNELS, 6, 7).double()
    integers = torch.stack(list(IntegerNeighbourhoodPredictor.quantise(model).rows((features * ONE).round()))) / ONE
    with torch.no_grad():
        torch.testing.assert_close(integers.permute(2, 0, 1), model(features[None])[0], atol=5e-3, rtol=0)


def test_integers_at_the_ends_of_their_range():
    integers = IntegerNeighbourhoodPredictor.quantise(predictor())
    features = torch.full((CHANNELS, 4, 4), float(ACTIVATION_MAX)).double()
    features[::2] *= -1
    rows = torch.cat(list(integers.rows(features)))
    assert torch.equal(rows, integers_by_patches(integers, features))
    assert rows.abs().max() <= ACTIVATION_MAX
