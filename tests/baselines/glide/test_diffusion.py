"""Noise and back: exact inverses, known pixels exact in sampling, guidance."""

from typing import Any

import pytest
import torch
from torch import Tensor

from nuwa_lip.baselines.glide.config import GLIDEConfig
from nuwa_lip.baselines.glide.diffusion import Noise, guided
from nuwa_lip.baselines.glide.model import GLIDE, Conditioning, enlarge, reduce_known

PARTS: Any = ("base", "finer")


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def picture(seed: int, side: int = 8) -> Tensor:
    return noise(seed, 2, 3, side, side).tanh()


def hole(side: int = 8) -> Tensor:
    mask = torch.zeros(2, 1, side, side, dtype=torch.bool)
    mask[0, :, 1 : side // 2, 2:] = mask[1, :, side // 2 :] = True
    return mask


@pytest.fixture(scope="module")
def tiny() -> GLIDE:
    torch.manual_seed(0)
    return GLIDE(GLIDEConfig.preset("tiny")).eval().requires_grad_(False)


def to_predict() -> tuple[Conditioning, Tensor, Tensor]:
    """What the base network predicts from, of two photos."""
    mask, image = hole(16), picture(0, 16)
    return Conditioning(image.masked_fill(mask, 0), mask), noise(3, 2, 3, 16, 16), torch.tensor([7, 700])


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_the_image_comes_back_from_noise_or_velocity(part: Any, prediction: str) -> None:
    schedule, image, fresh = Noise(part), picture(0), noise(1, 2, 3, 8, 8)
    for moment in (0, 10, 400, 900):
        time = torch.full((2,), moment)
        noisy = schedule.add(image, fresh, time)
        said = schedule.velocity(image, fresh, time) if prediction == "v" else fresh
        torch.testing.assert_close(schedule.image(said, noisy, time, prediction), image, atol=2e-3, rtol=0)


@pytest.mark.parametrize("part", PARTS)
def test_noise_grows_from_almost_nothing_to_almost_all(part: Any) -> None:
    for steps in (1000, 50):
        shares = Noise(part, steps).shares
        assert (shares.diff() < 0).all() and shares[-1] < 1e-3 and shares[0] > 0.95


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_who_knows_the_picture_paints_it(part: Any, eta: float) -> None:
    schedule, image, mask = Noise(part), picture(0), hole()
    condition = Conditioning(image.masked_fill(mask, 0), mask)

    def knows(noisy: Tensor, time: Tensor) -> Tensor:
        keep = schedule.shares[time][:, None, None, None]
        return (keep.sqrt() * noisy - image) / (1 - keep).sqrt()  # v

    generator = torch.Generator().manual_seed(0)
    painted = schedule.sample(knows, condition, prediction="v", steps=5, eta=eta, generator=generator)
    torch.testing.assert_close(painted, image, atol=1e-4, rtol=0)


def test_known_pixels_are_exact_whatever_is_said() -> None:
    mask, image = hole(), picture(0)
    condition = Conditioning(image.masked_fill(mask, 0), mask)
    for said in (0.0, 1e9, -1e9):
        painted = Noise("base").sample(
            lambda x, t, said=said: torch.full_like(x, said),  # type: ignore[misc]
            condition,
            prediction="epsilon",
            steps=3,
            eta=1.0,
            generator=torch.Generator().manual_seed(0),
        )
        known = ~mask.expand_as(image)
        assert (painted[known] == image[known]).all() and painted.abs().max() <= 1


def test_the_reduced_picture_does_not_know_the_hole() -> None:
    image, mask = picture(0, 16), hole(16)
    mask[:, :, 3, 3] = True
    results = []
    for content in (0.0, 5.0, float("nan")):
        small, small_mask = reduce_known(image.masked_fill(mask, content), mask, 2)
        results.append(small)
        cells = mask.reshape(2, 1, 8, 2, 8, 2).any(5).any(3)
        assert (small_mask == cells).all() and (small[small_mask.expand_as(small)] == 0).all()
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    plain = torch.nn.functional.avg_pool2d(image, 2)
    known = ~small_mask.expand_as(plain)
    torch.testing.assert_close(results[0][known], plain[known])
    assert enlarge(small, 2).shape == image.shape


def test_guidance_of_one_is_none_and_more_goes_further(tiny: GLIDE) -> None:
    condition, noisy, time = to_predict()
    text, empty = tiny.read(torch.tensor([[1, 9, 8, 2]] * 2)), tiny.read(torch.tensor([[1, 2]] * 2))
    plain = guided(tiny, text, None, condition, 3.0)(noisy, time)
    without = tiny.predict(empty, noisy, time, condition)
    assert torch.equal(guided(tiny, text, empty, condition, 1.0)(noisy, time), plain)
    assert not torch.equal(plain, without), "the caption counts"
    torch.testing.assert_close(guided(tiny, text, empty, condition, 0.0)(noisy, time), without)
    torch.testing.assert_close(guided(tiny, text, empty, condition, 3.0)(noisy, time), without + 3 * (plain - without))


def test_padding_and_other_photos_do_not_count(tiny: GLIDE) -> None:
    condition, noisy, time = to_predict()
    together = tiny.predict(tiny.read(torch.tensor([[1, 9, 2, 0, 0], [1, 9, 8, 7, 2]])), noisy, time, condition)
    alone = tiny.predict(
        tiny.read(torch.tensor([[1, 9, 2]])), noisy[:1], time[:1], Conditioning(condition.known[:1], condition.mask[:1])
    )
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)
