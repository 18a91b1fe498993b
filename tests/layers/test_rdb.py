import pytest
import torch
from torch import nn

from jointiq.layers.rdb import GRDB, RDB


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("kernels", "convs"), [(8, 1), (32, 3), (64, 8)])
def test_rdb_size_is_that_of_dense_3x3_convolutions_and_a_1x1_fusion(kernels: int, convs: int) -> None:
    dense = sum(9 * i * kernels * kernels + kernels for i in range(1, convs + 1))
    fusion = (convs + 1) * kernels * kernels + kernels
    assert count(RDB(kernels, convs)) == dense + fusion


def test_grdb_adds_one_1x1_fusion_of_its_blocks() -> None:
    assert count(GRDB(8, rdbs=3, convs=2)) == 3 * count(RDB(8, 2)) + 3 * 8 * 8 + 8


def test_rdb_equals_the_definition_written_out() -> None:
    torch.manual_seed(0)
    block = RDB(4, convs=2).eval()
    x = torch.randn(2, 4, 7, 5)
    first = block.convs[0](x).relu()
    second = block.convs[1](torch.cat([x, first], 1)).relu()
    expected = x + block.fusion(torch.cat([x, first, second], 1))
    torch.testing.assert_close(block(x), expected)


def test_grdb_fuses_the_output_of_every_block_in_cascade() -> None:
    torch.manual_seed(0)
    group = GRDB(4, rdbs=3, convs=1).eval()
    x = torch.randn(1, 4, 6, 6)
    one = group.rdbs[0](x)
    two = group.rdbs[1](one)
    three = group.rdbs[2](two)
    torch.testing.assert_close(group(x), x + group.fusion(torch.cat([one, two, three], 1)))


@pytest.mark.parametrize("block", [RDB(4, 2), GRDB(4, 2, 2)], ids=["RDB", "GRDB"])
def test_input_is_left_unchanged_and_the_residual_is_there(block: nn.Module) -> None:
    x = torch.randn(1, 4, 5, 5)
    before = x.clone()
    nn.init.zeros_(block.fusion.weight)
    nn.init.zeros_(block.fusion.bias)
    torch.testing.assert_close(block(x), before)
    assert torch.equal(x, before)
