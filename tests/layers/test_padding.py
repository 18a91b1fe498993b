import pytest
import torch

from jointiq.layers.padding import crop, pad_to_even, pyramid


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1), [(1, 1)] * 7),
        ((17, 65), [(17, 65), (9, 33), (5, 17), (3, 9), (2, 5), (1, 3), (1, 2)]),
        ((500, 400), [(500, 400), (250, 200), (125, 100), (63, 50), (32, 25), (16, 13), (8, 7)]),
    ],
)
def test_pyramid_halves_and_rounds_up(size, expected):
    assert pyramid(size, 6) == expected


def test_one_line_is_added_only_where_a_side_is_odd():
    x = torch.arange(1.0, 16).view(1, 1, 3, 5)
    padded = pad_to_even(x)
    assert padded.shape[-2:] == (4, 6)
    assert torch.equal(padded[..., :3, :5], x)
    assert padded[..., 3, :].abs().sum() == 0 and padded[..., 5].abs().sum() == 0
    edge = pad_to_even(x, "replicate")
    assert torch.equal(edge[..., 3, :5], x[..., 2, :]) and torch.equal(edge[..., :3, 5], x[..., 4])
    even = torch.rand(1, 1, 2, 4)
    assert pad_to_even(even) is even


def test_crop_undoes_the_padding():
    x = torch.rand(2, 3, 7, 4)
    assert torch.equal(crop(pad_to_even(x), (7, 4)), x)
