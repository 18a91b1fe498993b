import pytest
import torch

from jointiq.enhancers.vdsr import VDSR, VDSRSettings
from jointiq.errors import ConfigError

FIGURE_4 = (20, 34)
SMALL = (4, 6)


def expected_parameters(layers: int, kernels: int) -> int:
    """The hand calculation: 3 -> k, ``layers - 2`` times k -> k, k -> 3, all 3x3 with bias."""
    first, middle, last = 27 * kernels + kernels, 9 * kernels * kernels + kernels, 27 * kernels + 3
    return first + (layers - 2) * middle + last


@pytest.mark.parametrize(("sizes", "total"), [(FIGURE_4, 189_757), ((20, 64), 668_227), ((2, 5), 278)])
def test_parameter_count_is_the_hand_calculation(sizes: tuple[int, int], total: int) -> None:
    with torch.device("meta"):
        network = VDSR(VDSRSettings(*sizes))
    assert sum(p.numel() for p in network.parameters()) == expected_parameters(*sizes) == total


def test_the_signal_reaches_the_last_layer() -> None:
    torch.manual_seed(0)
    network = VDSR(VDSRSettings(*FIGURE_4))
    x = torch.rand(1, 3, 24, 24) * 2 - 1
    assert 0.1 < network.body(x).std() / x.std() < 10


def test_each_output_pixel_sees_one_more_line_a_layer() -> None:
    network = VDSR(VDSRSettings(*SMALL))
    for name, parameter in network.named_parameters():
        torch.nn.init.constant_(parameter, 0.1 if name.endswith("weight") else 0.0)
    x = torch.zeros(1, 3, 15, 15)
    x[..., 7, 7] = 1
    rows = network(x)[0].abs().sum(dim=(0, 2)).nonzero().flatten().tolist()
    assert rows == list(range(7 - 4, 7 + 4 + 1))


@pytest.mark.parametrize(("key", "value"), [("layers", 1), ("layers", 3.0), ("kernels", 0), ("kernels", True)])
def test_impossible_sizes_are_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"enhancer\.{key}="):
        VDSRSettings(**(dict(zip(("layers", "kernels"), SMALL, strict=True)) | {key: value}))
