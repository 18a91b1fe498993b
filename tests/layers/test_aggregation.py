import pytest
import torch

from jointiq.layers.aggregation import Aggregation, SynthesisFeatures
from jointiq.layers.padding import pyramid
from jointiq.layers.transforms import SynthesisTransform


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 2), (50, 61)])
@torch.no_grad()
def test_sizes(size):
    sizes = pyramid(size, 5)
    features = SynthesisFeatures(12, 5)(torch.randn(2, 5, *sizes[4]), size)
    assert features.shape == (2, 12, *sizes[1])
    aggregation = Aggregation(12, fine=5, coarse=8)
    image = aggregation(features, torch.randn(2, 5, *sizes[4]), torch.randn(2, 8, *sizes[5]), size)
    assert image.shape == (2, 3, *size)


@torch.no_grad()
def test_features_are_those_before_the_last_layer_of_the_synthesis():
    torch.manual_seed(0)
    whole, features = SynthesisTransform(6, 5), SynthesisFeatures(6, 5)
    features.load_state_dict({name: value for name, value in whole.state_dict().items() if "deconvs.3" not in name})
    y_hat, size = torch.randn(1, 5, 3, 2), (45, 31)
    last = whole.deconvs[3](features(y_hat.clone(), size))[..., :45, :31]
    torch.testing.assert_close(last, whole(y_hat, size))


def test_all_inputs_reach_the_picture():
    aggregation = Aggregation(12, fine=5, coarse=8)
    inputs = [torch.randn(1, 12, 17, 18), torch.randn(1, 5, 3, 3), torch.randn(1, 8, 2, 2)]
    for tensor in inputs:
        tensor.requires_grad_()
    aggregation(*inputs, size=(34, 35)).sum().backward()
    assert all(tensor.grad.abs().sum((0, 1)).max() > 0 for tensor in inputs)
