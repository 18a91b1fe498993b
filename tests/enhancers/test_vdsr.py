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


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_first_step_has_a_gradient_for_every_parameter(seed: int) -> None:
    torch.manual_seed(seed)
    network = VDSR(VDSRSettings(*FIGURE_4))
    x = torch.rand(2, 3, 17, 18) * 2 - 1
    (network(x) - torch.rand_like(x)).square().mean().backward()
    starved = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-6]
    assert starved == []


def test_the_signal_reaches_the_last_layer() -> None:
    torch.manual_seed(0)
    network = VDSR(VDSRSettings(*FIGURE_4))
    x = torch.rand(1, 3, 24, 24) * 2 - 1
    assert 0.1 < network.body(x).std() / x.std() < 10


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (16, 16), (17, 20), (33, 35)])
def test_any_size_comes_back_in_the_same_size(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size) * 2 - 1
    y = VDSR(VDSRSettings(*SMALL))(x)
    assert y.shape == x.shape
    assert y.isfinite().all()
    assert not torch.equal(y, x)


def test_each_output_pixel_sees_one_more_line_a_layer() -> None:
    network = VDSR(VDSRSettings(*SMALL))
    for name, parameter in network.named_parameters():
        torch.nn.init.constant_(parameter, 0.1 if name.endswith("weight") else 0.0)
    x = torch.zeros(1, 3, 15, 15)
    x[..., 7, 7] = 1
    rows = network(x)[0].abs().sum(dim=(0, 2)).nonzero().flatten().tolist()
    assert rows == list(range(7 - 4, 7 + 4 + 1))


def test_the_output_is_not_clamped_and_the_global_residual_is_there() -> None:
    network = VDSR(VDSRSettings(*SMALL))
    x = torch.full((1, 3, 5, 4), 5.0)
    torch.nn.init.zeros_(network.tail.weight)
    torch.nn.init.constant_(network.tail.bias, 2.0)
    assert torch.equal(network(x), x + 2)


@pytest.mark.parametrize(("key", "value"), [("layers", 1), ("layers", 3.0), ("kernels", 0), ("kernels", True)])
def test_impossible_sizes_are_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"enhancer\.{key}="):
        VDSRSettings(**(dict(zip(("layers", "kernels"), SMALL, strict=True)) | {key: value}))
