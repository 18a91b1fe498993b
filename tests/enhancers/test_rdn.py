import pytest
import torch

from jointiq.enhancers.rdn import RDN, RDNSettings
from jointiq.errors import ConfigError

FIGURE_4 = (5, 5, 16)
SMALL = (2, 2, 6)


def expected_parameters(blocks: int, convs: int, kernels: int) -> int:
    """The hand calculation: every weight and bias of the figure."""
    k = kernels
    block = sum(9 * i * k * k + k for i in range(1, convs + 1)) + (convs + 1) * k * k + k
    head, shallow, tail = 27 * k + k, 9 * k * k + k, 27 * k + 3
    fusion = (blocks * k * k + k) + (9 * k * k + k)
    return head + shallow + blocks * block + fusion + tail


@pytest.mark.parametrize(("sizes", "total"), [(FIGURE_4, 187_779), ((16, 8, 64), 21_975_683), ((1, 1, 2), 243)])
def test_parameter_count_is_the_hand_calculation(sizes: tuple[int, int, int], total: int) -> None:
    with torch.device("meta"):
        network = RDN(RDNSettings(*sizes))
    assert sum(p.numel() for p in network.parameters()) == expected_parameters(*sizes) == total


def test_features_are_fused_as_in_the_figure() -> None:
    torch.manual_seed(0)
    network = RDN(RDNSettings(*SMALL))
    x = torch.rand(1, 3, 9, 7)
    first = network.head(x)
    one = network.blocks[0](network.shallow(first))
    two = network.blocks[1](one)
    fused = network.fusion[1](network.fusion[0](torch.cat([one, two], dim=1)))
    torch.testing.assert_close(network(x), x + network.tail(first + fused))


@pytest.mark.parametrize(("key", "value"), [("blocks", 0), ("convs", -1), ("convs", 2.0), ("kernels", "16")])
def test_impossible_sizes_are_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"enhancer\.{key}="):
        RDNSettings(**(dict(zip(("blocks", "convs", "kernels"), SMALL, strict=True)) | {key: value}))
