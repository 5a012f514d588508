"""The fixed networks and the distance of their maps, against values by hand."""

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nuwa_lip.assets import asset
from nuwa_lip.models.perceptual import (
    Features,
    SqueezeNetFeatures,
    VGG16Features,
    lpips,
    squeezenet,
    vgg16,
)

WEIGHTS = asset("squeezenet/squeezenet1_1_caffe_fp16.safetensors")


@pytest.fixture(scope="module")
def net() -> SqueezeNetFeatures:
    return squeezenet(load_file(WEIGHTS))


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """Three smooth pictures, as photos are, [3, 3, 64, 64]."""
    coarse = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return nn.functional.interpolate(coarse, 64, mode="bicubic").clamp(-1, 1)


class Identity(Features):
    """Its maps are the picture itself and, of half the size, its double."""

    def __init__(self) -> None:
        super().__init__([nn.Identity(), nn.AvgPool2d(2)], (0, 1))

    def normalise(self, images: Tensor) -> Tensor:
        return images


def test_squeezenets_weights_and_maps(net: SqueezeNetFeatures, pictures: Tensor) -> None:
    state = load_file(WEIGHTS)
    assert torch.equal(net.features[0].weight, state["features.0.weight"].float())
    assert not any(p.requires_grad for p in net.parameters()) and not net.training
    maps = net(pictures)
    channels = (64, 128, 256, 384, 384, 512, 512)
    sides = (31, 15, 7, 3, 3, 3, 3)
    assert [tuple(m.shape) for m in maps] == [(3, c, s, s) for c, s in zip(channels, sides, strict=True)]
    assert all((m >= 0).all() and m.std() > 0 for m in maps), "after ReLUs"
    assert net(pictures[:, :, :17, :17])[-1].shape == (3, 512, 1, 1)


def test_weights_that_do_not_fit_are_refused() -> None:
    state = load_file(WEIGHTS)
    extra = {**state, "classifier.1.weight": torch.zeros(1)}
    assert torch.equal(squeezenet(extra).features[0].weight, state["features.0.weight"].float())
    del state["features.0.weight"]
    with pytest.raises(RuntimeError, match="features.0.weight"):
        squeezenet(state)


def test_squeezenet_reads_bgr_less_the_mean(net: SqueezeNetFeatures) -> None:
    red, green, blue = 1.0, 0.0, -1.0
    given = torch.tensor([red, green, blue]).view(1, 3, 1, 1)
    assert net.normalise(given).flatten().tolist() == [0 - 104.0, 127.5 - 117.0, 255 - 123.0]


def test_vgg16() -> None:
    torch.manual_seed(0)
    made = VGG16Features()
    maps = made(torch.zeros(1, 3, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (64, 32, 32),
        (128, 16, 16),
        (256, 8, 8),
        (512, 4, 4),
        (512, 2, 2),
    ]
    assert all((m >= 0).all() for m in maps)
    given = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1)
    wanted = [(1 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0 - 0.406) / 0.225]
    assert made.normalise(given).flatten().tolist() == pytest.approx(wanted)
    names = [name for name in made.state_dict() if name.endswith("weight")]
    assert len(names) == 13 and names[-1] == "features.28.weight"  # as torchvision has them
    state = {name: value.half() for name, value in made.state_dict().items()}
    loaded = vgg16({**state, "classifier.0.weight": torch.zeros(1)})
    assert torch.equal(loaded.features[28].weight, made.features[28].weight.half().float())


def test_lpips_by_hand() -> None:
    a, b = torch.zeros(1, 3, 2, 4), torch.zeros(1, 3, 2, 4)
    a[:, 0], b[:, 0] = 5, 0.1  # the same direction, whatever the length
    b[:, 0, :, 2:], b[:, 1, :, 2:] = 0, 3  # right half: at right angles, squared distance 2
    assert lpips(Identity(), a, b) == pytest.approx(1)
    hole = torch.zeros(1, 1, 2, 4, dtype=torch.bool)
    hole[..., 2:] = True
    assert lpips(Identity(), a, b, hole) == pytest.approx(2)
    assert lpips(Identity(), a, b, ~hole) == pytest.approx(0, abs=1e-6)
    hole[..., 1] = True  # finest: 2 of 3 columns differ; coarser: half of the left one counts
    assert lpips(Identity(), a, b, hole) == pytest.approx((2 * 2 / 3 + 2 * 1 / 1.5) / 2)


def test_zero_for_equal_pictures_and_symmetric(net: SqueezeNetFeatures, pictures: Tensor) -> None:
    assert lpips(net, pictures, pictures).tolist() == [0, 0, 0]
    there, back = (lpips(net, *pair) for pair in ((pictures, pictures.flip(0)), (pictures.flip(0), pictures)))
    assert torch.equal(there, back) and there[1] == 0 and there[0] > 0.05 and there[2] > 0.05
    assert there.shape == (3,)


def test_it_grows_with_the_difference(net: SqueezeNetFeatures, pictures: Tensor) -> None:
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))
    found = [lpips(net, pictures, (pictures + s * noise).clamp(-1, 1)) for s in (0.02, 0.1, 0.4)]
    assert (found[0] < found[1]).all() and (found[1] < found[2]).all()


def test_a_whole_mask_gives_the_whole_value(net: SqueezeNetFeatures, pictures: Tensor) -> None:
    other = pictures.roll(9, 3)
    everything = torch.ones(3, 1, 64, 64, dtype=torch.bool)
    torch.testing.assert_close(lpips(net, pictures, other, everything), lpips(net, pictures, other))
    assert lpips(net, pictures, other, ~everything).tolist() == [0, 0, 0], "nothing to average over is no NaN"
    half = everything.clone()
    half[..., 32:] = False
    parts = [lpips(net, pictures, other, mask) for mask in (half, ~half)]
    whole = lpips(net, pictures, other)
    assert (torch.minimum(*parts) <= whole).all() and (whole <= torch.maximum(*parts)).all()
    assert not torch.allclose(parts[0], parts[1], rtol=1e-3)


def test_gradients_reach_the_pictures_only(net: SqueezeNetFeatures, pictures: Tensor) -> None:
    painted = pictures.flip(0).requires_grad_()
    lpips(net, painted, pictures).sum().backward()
    assert painted.grad is not None and painted.grad[0].abs().sum() > 0
    assert all(p.grad is None for p in net.parameters())
