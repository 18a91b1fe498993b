import pytest
import torch

from jointiq.layers.hyper_space_to_depth import (
    DepthToSpaceSynthesis,
    IntegerDepthToSpaceSynthesis,
    SpaceToDepthAnalysis,
)
from jointiq.layers.integer_layers import ONE

SIZES = [(1, 1), (1, 4), (5, 2), (7, 9)]


def half(size):
    return tuple((side + 1) // 2 for side in size)


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_down_and_up_again(size):
    down, up = SpaceToDepthAnalysis(6, 5, 7, 3), DepthToSpaceSynthesis(3, 8, 6)
    latent = down(torch.randn(2, 6, *size))
    assert latent.shape == (2, 3, *half(size))
    assert up(latent, size).shape == (2, 6, *size)


@torch.no_grad()
def test_an_odd_side_gets_zeros():
    down = SpaceToDepthAnalysis(2, 3, 4, 5)
    x = torch.randn(1, 2, 3, 5)
    wide = torch.zeros(1, 3, 4, 6)
    wide[..., :3, :5] = down.conv(x)
    blocks = torch.nn.functional.pixel_unshuffle(wide, 2)
    torch.testing.assert_close(down(x), down.pointwise(blocks))


@torch.no_grad()
def test_nothing_stands_between_the_first_two_layers_up():
    torch.manual_seed(0)
    up, latent = DepthToSpaceSynthesis(3, 8, 2), torch.randn(1, 3, 2, 2)
    before = up(latent, (4, 4))
    for parameter in (*up.pointwise[0].parameters(), up.pointwise[1].weight):
        parameter.neg_()
    torch.testing.assert_close(up(latent, (4, 4)), before)


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_integers_are_near_the_floats(size):
    torch.manual_seed(0)
    up = DepthToSpaceSynthesis(3, 8, 6).double()
    latent = torch.randint(-9, 10, (3, *half(size)))
    integers = IntegerDepthToSpaceSynthesis.quantise(up)(latent, size)
    assert torch.equal(integers, integers.round())
    torch.testing.assert_close(integers / ONE, up(latent[None].double(), size)[0], atol=0.01, rtol=0)
