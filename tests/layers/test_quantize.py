import torch

from jointiq.layers.quantize import add_uniform_noise, round_ste


def test_rounds_to_even_with_the_gradient_of_the_identity():
    x = torch.tensor([-1.5, -0.5, 0.49, 0.5, 1.5, 2.5, 1e6 + 0.4], requires_grad=True)
    rounded = round_ste(x)
    assert torch.equal(rounded.detach(), torch.round(x.detach()))
    (rounded * torch.arange(7.0)).sum().backward()
    assert torch.equal(x.grad, torch.arange(7.0))


def test_noise_is_uniform_and_keeps_the_gradient():
    x = torch.zeros(20000, requires_grad=True)
    noisy = add_uniform_noise(x)
    noise = noisy.detach()
    assert noise.abs().max() <= 0.5
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.var()) - 1 / 12) < 0.003
    noisy.sum().backward()
    assert torch.equal(x.grad, torch.ones(20000))
