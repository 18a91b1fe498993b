import pytest
import torch

from jointiq.enhancers.grdn import GRDN, GRDNSettings
from jointiq.errors import ConfigError

LIGHT = (4, 3, 3, 32)
FULL = (4, 4, 8, 64)
SMALL = (2, 2, 2, 8)


def expected_parameters(grdbs: int, rdbs: int, convs: int, kernels: int) -> int:
    """The hand calculation: every weight and bias of the figure, for CBAM with reduction 8 and a 7x7 kernel."""
    k = kernels
    rdb = sum(9 * i * k * k + k for i in range(1, convs + 1)) + (convs + 1) * k * k + k
    grdb = rdbs * rdb + rdbs * k * k + k
    head, tail = 9 * 3 * k + k, 9 * k * 3 + 3
    scaling = 2 * (16 * k * k + k)
    hidden = k // 8
    cbam = (k * hidden + hidden) + (hidden * k + k) + (2 * 49 + 1)
    return head + scaling + grdbs * grdb + cbam + tail


@pytest.mark.parametrize(("sizes", "total"), [(LIGHT, 761_642), (FULL, 22_034_414)], ids=["light", "full"])
def test_parameter_count_is_the_hand_calculation(sizes: tuple[int, int, int, int], total: int) -> None:
    with torch.device("meta"):
        network = GRDN(GRDNSettings(*sizes))
    assert sum(p.numel() for p in network.parameters()) == expected_parameters(*sizes) == total


def test_every_part_is_there_as_often_as_the_paper_says() -> None:
    network = GRDN(GRDNSettings(4, 3, 5, 8))
    assert len(network.grdbs) == 4
    assert {len(group.rdbs) for group in network.grdbs} == {3}
    assert {len(block.convs) for group in network.grdbs for block in group.rdbs} == {5}


def test_an_odd_side_is_one_line_of_zeros_at_the_bottom_and_right_of_the_features() -> None:
    torch.manual_seed(0)
    network = GRDN(GRDNSettings(*SMALL)).eval()
    x = torch.rand(1, 3, 9, 7)
    padded = torch.nn.functional.pad(network.head(x), (0, 1, 0, 1))
    features = network.up(network.grdbs(network.down(padded)))[..., :9, :7]
    torch.testing.assert_close(network(x), x + network.tail(network.attention(features)))


def test_images_of_a_batch_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    network = GRDN(GRDNSettings(*SMALL)).eval()
    x = torch.rand(3, 3, 15, 16)
    together = network(x)
    alone = torch.cat([network(image[None]) for image in x])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize(
    ("key", "value"),
    [("grdbs", 0), ("rdbs", -1), ("convs", 2.0), ("kernels", "32"), ("reduction", 0), ("grdbs", True)]
    + [("spatial_kernel", 4), ("spatial_kernel", 0)],
)
def test_impossible_sizes_are_refused_by_name(key: str, value: object) -> None:
    arguments = dict(zip(("grdbs", "rdbs", "convs", "kernels"), SMALL, strict=True)) | {key: value}
    with pytest.raises(ConfigError, match=rf"enhancer\.{key}="):
        GRDNSettings(**arguments)
    assert issubclass(ConfigError, ValueError)
