import torch
from torch import nn

from jointiq.entropy_models.integer.storage import pack_layers, unpack_layers
from jointiq.layers.integer_layers import IntegerLinear


def test_layers_come_back_as_they_were():
    torch.manual_seed(0)
    layers = {
        name: IntegerLinear.quantise(torch.randn(3, 4), torch.randn(3), bits) for name, bits in (("a", 12), ("b", 6))
    }
    tensors = pack_layers("f", layers)
    assert tensors["f.a.weight"].dtype == torch.int16 and tensors["f.a.shift"].dtype == torch.uint8
    again = unpack_layers(tensors | {"prior.log_sigma": torch.zeros(2)})
    assert list(again) == ["f"] and list(again["f"]) == ["a", "b"]
    for name, layer in layers.items():
        back = again["f"][name]
        for part in ("weight", "bias", "shift"):
            assert torch.equal(getattr(back, part), getattr(layer, part))
        assert back.fraction_bits == layer.fraction_bits


def test_floats_are_what_the_integers_stand_for():
    torch.manual_seed(0)
    for layer in (nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(3, 4, 5, stride=2)):
        tensors = pack_layers("f", {"a": IntegerLinear.of_layer(layer)})
        integers = unpack_layers(tensors)["f"]["a"]
        weight, bias = integers.floats()
        assert weight.shape == (4, 3 * layer.kernel_size[0] ** 2) and bias.shape == (4,)
        before = layer.weight.detach().clone()
        integers.restore(layer)
        assert (layer.weight - before).abs().max() < before.abs().max() / 2**12
        # Integers of the restored layer are the same integers.
        assert torch.equal(pack_layers("f", {"a": IntegerLinear.of_layer(layer)})["f.a.weight"], tensors["f.a.weight"])
