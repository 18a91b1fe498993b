import pytest
import torch

from jointiq.bitstream.scan import get_scan
from jointiq.layers.context import KNOWN_ENTRIES, WindowLinear


def naive(layer, x, row, column):
    """The fully connected layer on the 4x4 window of one position, entry by entry."""
    _, _, height, width = x.shape
    out = torch.zeros(x.shape[0], layer.out_channels)
    for i in range(4):
        for j in range(4):
            if layer.causal and i == 3 and j >= 2:
                continue
            r, c = row - 3 + i, column - 2 + j
            if 0 <= r < height and 0 <= c < width:
                out += x[:, :, r, c] @ layer.weight[:, :, i, j].T
    return out if layer.bias is None else out + layer.bias


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (6, 7)])
@torch.no_grad()
def test_equals_the_definition_at_every_position(causal, size):
    layer = WindowLinear(3, 5, causal)
    x = torch.randn(2, 3, *size)
    result = layer(x)
    for row in range(size[0]):
        for column in range(size[1]):
            torch.testing.assert_close(result[:, :, row, column], naive(layer, x, row, column), atol=1e-5, rtol=1e-5)


def seen_by(layer, height=7, width=8, row=4, column=4):
    """Positions whose input changes the output at (row, column)."""
    x = torch.randn(1, 2, height, width, requires_grad=True)
    layer(x)[0, :, row, column].abs().sum().backward()
    return {(int(r), int(c)) for r, c in x.grad[0].abs().sum(0).nonzero()}


def test_causal_window_sees_known_positions_only_in_both_scans():
    seen = seen_by(WindowLinear(2, 3, causal=True))
    assert seen == {(r, c) for r in range(1, 5) for c in range(2, 6) if r < 4 or c < 4}
    assert len(seen) == KNOWN_ENTRIES
    for name in ("raster", "wavefront"):
        order = {}
        for step, run in enumerate(get_scan(name).steps(7, 8)):
            for r, c in zip(*(axis.tolist() for axis in run.index()), strict=True):
                order[r, c] = step
        assert all(order[position] < order[4, 4] for position in seen)


def test_hyper_window_sees_all_of_it():
    assert seen_by(WindowLinear(2, 3, causal=False)) == {(r, c) for r in range(1, 5) for c in range(2, 6)}


def test_a_broken_mask_is_noticed():
    layer = WindowLinear(2, 3, causal=True)
    layer.mask.fill_(1)
    assert (4, 4) in seen_by(layer)
