"""Augmentation: geometry is exact, chance comes from the generator alone."""

import pytest
import torch

from nuwa_lip.data.augment import Augmentation, augment

STILL = Augmentation(scale=(1.0, 1.0), flip=False, colour=0.0, stretch=False)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(b: int, side: int) -> torch.Tensor:
    return torch.randint(0, 256, (b, 3, side, side), dtype=torch.uint8, generator=generator(7))


def ramp(side: int) -> torch.Tensor:
    """Red rises to the right, green rises downwards; one photo, 0..255."""
    line = torch.linspace(0, 255, side)
    zero = torch.zeros(side, side)
    picture = torch.stack([line.expand(side, side), line[:, None].expand(side, side), zero])
    return picture.round().to(torch.uint8)[None]


def test_without_variation_the_photo_comes_back() -> None:
    images = noise(3, 24)
    result = augment(images, torch.ones(3), 24, STILL, generator())
    assert result.dtype == torch.float32 and result.shape == (3, 3, 24, 24)
    torch.testing.assert_close(result, images.float() / 127.5 - 1, atol=1e-4, rtol=0)


def test_same_generator_same_pictures() -> None:
    images, aspects = noise(4, 40), torch.tensor([0.0, 1.0, 1.5, 0.7])
    first, again, other = (augment(images, aspects, 32, Augmentation(), generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.min() >= -1 and first.max() <= 1


def test_a_photo_does_not_depend_on_its_neighbours_content() -> None:
    images, aspects = noise(4, 40), torch.ones(4)
    changed = images.clone()
    changed[1:] = 0
    both = [augment(x, aspects, 32, Augmentation(), generator())[0] for x in (images, changed)]
    assert torch.equal(*both)


@pytest.mark.parametrize("aspect, across, down", [(1.0, 1.0, 1.0), (4 / 3, 0.75, 1.0), (0.5, 1.0, 0.5)])
def test_squeezed_photos_are_cropped_undistorted(aspect: float, across: float, down: float) -> None:
    side, size = 96, 64
    result = augment(ramp(side), torch.tensor([aspect]), size, STILL, generator())[0]
    red, green = ((result[c] + 1) / 2 for c in (0, 1))
    assert float(red[:, -1].mean() - red[:, 0].mean()) == pytest.approx(across, abs=0.03)
    assert float(green[-1].mean() - green[0].mean()) == pytest.approx(down, abs=0.03)
    for colour, part in ((red, across), (green, down)):  # nothing beyond the photo's edges
        assert abs(float(colour.mean()) - 0.5) <= (1 - part) / 2 + 0.01


def test_unknown_shapes_are_stretched_in_proportion() -> None:
    b = 400
    images = ramp(48).expand(b, -1, -1, -1)
    recipe = Augmentation(scale=(1.0, 1.0), flip=False, colour=0.0)
    for aspects in (torch.zeros(b), torch.full((b,), float("nan"))):
        result = (augment(images, aspects, 16, recipe, generator()) + 1) / 2
        across = result[:, 0, 0, -1] - result[:, 0, 0, 0]
        down = result[:, 1, -1, 0] - result[:, 1, 0, 0]
        wide, tall = (across < down - 0.1).float().mean(), (down < across - 0.1).float().mean()
        assert 0.65 < wide < 0.85 and 0.08 < tall < 0.22
    kept = Augmentation(scale=(1.0, 1.0), flip=False, colour=0.0, stretch=False)
    result = augment(images[:8], torch.zeros(8), 48, kept, generator())
    torch.testing.assert_close(result, images[:8].float() / 127.5 - 1, atol=1e-4, rtol=0)


def test_scale_is_an_area() -> None:
    b = 200
    recipe = Augmentation(scale=(0.25, 0.36), flip=False, colour=0.0)
    result = (augment(ramp(64).expand(b, -1, -1, -1), torch.ones(b), 32, recipe, generator()) + 1) / 2
    side = (result[:, 0, 0, -1] - result[:, 0, 0, 0]) * 32 / 31
    assert side.min() > 0.48 and side.max() < 0.62
    centre = result[:, 0].mean((1, 2))
    assert centre.min() < 0.33 and centre.max() > 0.67  # the crop wanders


def test_flips_spare_captions_with_sides() -> None:
    b = 100
    recipe = Augmentation(scale=(1.0, 1.0), colour=0.0)
    images, ones = ramp(32).expand(b, -1, -1, -1), torch.ones(b)

    def mirrored(captions: list[str] | None) -> float:
        result = augment(images, ones, 32, recipe, generator(), captions)
        return float((result[:, 0, 0, 0] > result[:, 0, 0, -1]).float().mean())

    assert 0.35 < mirrored(None) < 0.65 and 0.35 < mirrored(["bright leaf"] * b) < 0.65
    assert mirrored(["a dog on the LEFT"] * b) == 0 == mirrored(["at the bottom right"] * b)


def test_shrinking_much_averages_instead_of_skipping() -> None:
    checks = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 255
    images = checks.to(torch.uint8).expand(1, 3, 64, 64)
    result = augment(images, torch.ones(1), 16, STILL, generator())
    torch.testing.assert_close(result, torch.zeros_like(result), atol=0.02, rtol=0)


def test_colour_changes_stay_small_and_keep_greys_grey() -> None:
    images = torch.full((50, 3, 8, 8), 128, dtype=torch.uint8)
    result = augment(images, torch.ones(50), 8, Augmentation(colour=0.2), generator())
    assert result.std() > 0.02 and result.abs().max() < 0.25
    torch.testing.assert_close(result[:, 0], result[:, 2], atol=1e-5, rtol=0)
