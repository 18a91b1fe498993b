import pytest
import torch

from jointiq.layers.cbam import CBAM, ChannelAttention, SpatialAttention


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 1), (6, 7)])
def test_any_size_gives_finite_gates_of_the_right_shape(size: tuple[int, int]) -> None:
    x = torch.randn(2, 16, *size)
    channel, spatial = ChannelAttention(16, 8)(x), SpatialAttention(7)(x)
    assert channel.shape == (2, 16, 1, 1)
    assert spatial.shape == (2, 1, *size)
    for gate in (channel, spatial):
        assert ((gate > 0) & (gate < 1)).all()
    assert CBAM(16)(x).shape == x.shape


def test_channel_gate_is_one_perceptron_on_mean_and_maximum() -> None:
    attention = ChannelAttention(4, 2)
    x = torch.randn(1, 4, 3, 5)
    mean, peak = x.flatten(2).mean(2)[..., None, None], x.flatten(2).max(2).values[..., None, None]
    torch.testing.assert_close(attention(x), (attention.mlp(mean) + attention.mlp(peak)).sigmoid())


def test_spatial_gate_follows_the_place_and_channel_gate_does_not() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 8, 20, 20)
    shifted = x.roll(5, dims=3)
    channel, spatial = ChannelAttention(8, 2), SpatialAttention(7)
    torch.testing.assert_close(channel(shifted), channel(x))
    inner = slice(8, 17)  # no border within three pixels, before or after the shift
    torch.testing.assert_close(spatial(shifted)[..., 4:16, inner], spatial(x)[..., 4:16, 3:12])
    assert (spatial(shifted) - spatial(x)).abs().max() > 1e-3


def test_gates_are_applied_one_after_the_other() -> None:
    cbam = CBAM(8, reduction=2, spatial_kernel=3)
    x = torch.randn(1, 8, 4, 4)
    gated = x * cbam.channel(x)
    torch.testing.assert_close(cbam(x), gated * cbam.spatial(gated))


def test_parameter_count() -> None:
    channels, hidden, kernel = 32, 4, 7
    expected = 2 * channels * hidden + hidden + channels + 2 * kernel * kernel + 1
    assert sum(p.numel() for p in CBAM(32, reduction=8, spatial_kernel=7).parameters()) == expected
