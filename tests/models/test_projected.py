"""EfficientNet-Lite0 against a plain one with batch norms, and the discriminator that judges by its features."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nuwa_lip.models.losses import discriminator_loss
from nuwa_lip.models.projected import GROUPS, EfficientNetLite0, ProjectedDiscriminator, _padding
from tests.small_runs import efficientnet_state


@pytest.fixture(scope="module")
def features() -> EfficientNetLite0:
    return EfficientNetLite0(efficientnet_state())


def plainly(state: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """The maps, one operation after the other, in float64."""

    def conv(x: Tensor, name: str, norm: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"].double()
        kernel = weight.shape[-1]
        for dim in (2, 3):  # TensorFlow's "same"
            size = x.shape[dim]
            whole = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pad = (0, 0, whole // 2, whole - whole // 2) if dim == 2 else (whole // 2, whole - whole // 2)
            x = F.pad(x, pad)
        x = F.conv2d(x, weight, stride=stride, groups=x.shape[1] // weight.shape[1])
        mean, variance, scale, bias = (
            state[f"{norm}.{part}"].double() for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, scale, bias, eps=1e-3)

    x = ((images.double() + 1) * 127.5 - 127) / 128
    x = F.relu6(conv(x, "conv_stem", "bn1", 2))
    x = F.relu6(conv(x, "blocks.0.0.conv_dw", "blocks.0.0.bn1"))
    x = conv(x, "blocks.0.0.conv_pw", "blocks.0.0.bn2")
    found = []
    for i, (_, blocks, _, stride) in enumerate(GROUPS, 1):
        for n in range(blocks):
            name = f"blocks.{i}.{n}"
            h = F.relu6(conv(x, f"{name}.conv_pw", f"{name}.bn1"))
            h = F.relu6(conv(h, f"{name}.conv_dw", f"{name}.bn2", 1 if n else stride))
            h = conv(h, f"{name}.conv_pwl", f"{name}.bn3")
            x = x + h if n else h
        found.append(x)
    return [found[0], found[1], found[3]]


def test_the_maps_are_those_of_the_network_with_its_batch_norms(features: EfficientNetLite0) -> None:
    images = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    maps, wanted = features(images), plainly(efficientnet_state(), images)
    assert [m.shape[1:] for m in maps] == [(24, 12, 16), (40, 6, 8), (112, 3, 4)]
    for found, plain in zip(maps, wanted, strict=True):
        assert plain.std() > 0.05
        torch.testing.assert_close(found.double(), plain, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "sides"),
    [(128, 3, 2, (0, 1)), (64, 5, 2, (1, 2)), (8, 5, 1, (2, 2)), (7, 3, 2, (1, 1))],
)
def test_what_is_odd_of_the_padding_stands_right_and_below(
    size: int, kernel: int, stride: int, sides: tuple[int, int]
) -> None:
    assert _padding(size, kernel, stride) == sides


def test_features_are_judged_in_cells_of_sixteen_pixels_and_pixels_in_cells_of_four(
    features: EfficientNetLite0,
) -> None:
    torch.manual_seed(0)
    judged = ProjectedDiscriminator(features, filters=8)(torch.rand(2, 3, 64, 96))
    assert judged.shape == (2, 4, 16, 24)
    cells = judged.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4).std(-1)  # [2, 4, 4, 6]
    assert not cells[:, :3].any() and (cells[:, 3] > 0).all()


def test_the_heads_learn_and_nothing_else(features: EfficientNetLite0) -> None:
    critic = ProjectedDiscriminator(features, filters=8)
    learning = {name.split(".")[0] for name, p in critic.named_parameters() if p.requires_grad}
    fixed = {name.split(".")[0] for name, p in critic.named_parameters() if not p.requires_grad}
    assert learning == {"heads", "pixels"} and fixed == {"features", "mix_channels", "mix_scales"}
    assert not any(module.training for module in critic.features.modules())


def test_the_finest_head_sees_the_coarsest_map(features: EfficientNetLite0) -> None:
    torch.manual_seed(0)
    critic = ProjectedDiscriminator(features, filters=8).eval()
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    before = critic(images)
    critic.mix_channels[2].weight.data.zero_()
    after = critic(images)
    assert not torch.allclose(before[:, 0], after[:, 0], atol=1e-5)
    assert torch.equal(before[:, 3], after[:, 3]), "pixels are judged by themselves"


def test_no_layer_of_a_head_is_steeper_than_one(features: EfficientNetLite0) -> None:
    torch.manual_seed(0)
    critic = ProjectedDiscriminator(features, filters=8)
    for _ in range(50):  # power iterations
        critic(torch.zeros(1, 3, 32, 32))
    for head in critic.heads:
        for layer in head[::2]:
            largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
            assert largest == pytest.approx(1, abs=0.02)


def test_it_can_tell_blurred_from_sharp(features: EfficientNetLite0) -> None:
    torch.manual_seed(0)
    critic = ProjectedDiscriminator(features, filters=8)
    optimizer = torch.optim.Adam([p for p in critic.parameters() if p.requires_grad], lr=5e-3)
    sharp = torch.rand(4, 3, 32, 32) * 2 - 1
    blurred = F.avg_pool2d(sharp, 5, stride=1, padding=2)
    first = float(discriminator_loss(critic(sharp), critic(blurred)).detach())
    for _ in range(30):
        loss = discriminator_loss(critic(sharp), critic(blurred))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5 * first and critic(sharp).mean() > critic(blurred).mean() + 1
