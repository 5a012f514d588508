"""The PatchGAN and its losses, against values by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nuwa_lip.models.losses import PatchGAN, adaptive_weight, discriminator_loss, generator_loss


@pytest.mark.parametrize(
    ("layers", "side", "patches"),
    [(3, 256, 30), (3, 32, 2), (2, 64, 14), (1, 32, 14)],  # 3 and 256: pix2pix's 30 x 30
)
def test_shapes(layers: int, side: int, patches: int) -> None:
    critic = PatchGAN(filters=8, layers=layers)
    assert critic(torch.zeros(2, 3, side, side)).shape == (2, 1, patches, patches)


def test_widths_double_up_to_eightfold() -> None:
    convolutions = [m for m in PatchGAN(filters=8, layers=5).modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [8, 16, 32, 64, 64, 64, 1]
    assert [m.stride[0] for m in convolutions] == [2, 2, 2, 2, 2, 1, 1]
    for convolution in convolutions:
        assert convolution.weight.detach().std() == pytest.approx(0.02, rel=0.2)
        assert convolution.bias is None or not convolution.bias.any()


def test_every_picture_is_judged_alone() -> None:
    torch.manual_seed(0)
    critic, pictures = PatchGAN(filters=8, layers=2), torch.rand(4, 3, 32, 32)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in critic.modules())
    together = critic(pictures)
    alone = torch.cat([critic(picture) for picture in pictures.split(1)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert together.std() > 1e-4
    pictures[1:] = 50
    torch.testing.assert_close(critic(pictures)[0], together[0], atol=1e-5, rtol=1e-5)


def test_it_can_tell_two_kinds_of_pictures_apart() -> None:
    torch.manual_seed(0)
    critic = PatchGAN(filters=8, layers=1)
    optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3)
    flat, noisy = torch.zeros(2, 3, 16, 16), torch.randn(2, 3, 16, 16)
    for _ in range(30):
        loss = discriminator_loss(critic(noisy), critic(flat))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert critic(noisy).mean() > 0.5 and critic(flat).mean() < -0.5 and loss < 0.3


def test_hinge_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])
    # real: 0, 0.5, 2 → 2.5 / 3; fake: 0, 1, 2 → 3 / 3
    assert discriminator_loss(real, fake) == pytest.approx((2.5 / 3 + 1) / 2)
    assert generator_loss(fake) == pytest.approx(2 / 3)
    assert discriminator_loss(torch.full((3,), 1.5), torch.full((3,), -1.5)) == 0
    assert discriminator_loss(real.bfloat16(), fake.bfloat16()).dtype == torch.float32


def test_hinge_gradients_push_apart_and_the_generator_up() -> None:
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    discriminator_loss(real, fake).backward()
    assert (real.grad < 0).all() and (fake.grad > 0).all()  # type: ignore[operator]
    fake.grad = None
    generator_loss(fake).backward()
    assert (fake.grad < 0).all()  # type: ignore[operator]


def test_adaptive_weight_by_hand() -> None:
    weight = adaptive_weight(torch.tensor([3.0, -4.0], requires_grad=True), torch.tensor([[0.0, 2.5 - 1e-4]]))
    assert weight == pytest.approx(2) and not weight.requires_grad
    assert adaptive_weight(torch.tensor([3.0]), torch.zeros(1)) == 1e4, "bounded"
    assert adaptive_weight(torch.tensor([3.0]), torch.zeros(1), largest=7.0) == 7
    assert adaptive_weight(torch.zeros(1), torch.ones(1)) == 0


def test_adaptive_weight_makes_the_gradients_equally_large() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 4), torch.randn(8, 4)
    y = layer(x)
    first, second = F.mse_loss(y, x), 37 * y.sin().mean()
    gradients = [torch.autograd.grad(loss, layer.weight, retain_graph=True)[0] for loss in (first, second)]
    weight = adaptive_weight(*gradients)
    assert (weight * gradients[1]).norm() == pytest.approx(float(gradients[0].norm()), rel=1e-3)
