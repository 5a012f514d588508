"""Diffusion with known pixels: noise in training, and sampling that repaints the hole only.

    x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε

In every step of sampling the network's x_0 has its known pixels replaced by those of the photo, as in the published
code of GLIDE: they are never anything else, and what is painted is drawn to fit them.

Legend: B batch, S side, t time, s guidance scale.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from nuwa_lip.baselines.glide.model import GLIDE, Conditioning, Text, need_diffusers

SCHEDULES = {"base": "squaredcos_cap_v2", "finer": "linear"}
"""How noise grows with time in each of GLIDE's networks."""


class Noise:
    """One network's schedule of noise.

    Args:
        part: "base" or "finer".
        steps: of training.

    Raises:
        InputError: diffusers is not installed.
    """

    def __init__(self, part: Literal["base", "finer"], steps: int = 1000) -> None:
        _, scheduler = need_diffusers()
        self.scheduler = scheduler(
            num_train_timesteps=steps,
            # the linear one is defined for a thousand steps
            beta_start=min(0.5, 0.1 / steps),
            beta_end=min(0.999, 20 / steps),
            beta_schedule=SCHEDULES[part],
            clip_sample=False,
            prediction_type="sample",  # x_0 is worked out here, where the known pixels are put into it
            timestep_spacing="trailing",
        )
        self.shares: Tensor = self.scheduler.alphas_cumprod
        """ᾱ, [steps]"""
        # in single precision the first step's direction would be the root of a negative number
        self.scheduler.alphas_cumprod = self.shares.double()

    def add(self, image: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Compute x_t.

        Args:
            image: x_0, [B, 3, S, S].
            noise: ε, like `image`.
            time: int64 [B].
        """
        keep, drown = self._factors(time, image)
        return keep * image + drown * noise

    def velocity(self, image: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Compute v = √ᾱ ε - √(1-ᾱ) x_0.

        Args:
            image: x_0, [B, 3, S, S].
            noise: ε, like `image`.
            time: int64 [B].
        """
        keep, drown = self._factors(time, image)
        return keep * noise - drown * image

    def image(self, output: Tensor, noisy: Tensor, time: Tensor, prediction: str) -> Tensor:
        """Compute x_0 in [-1, 1] from a network's output.

        Args:
            output: the noise or the velocity, [B, 3, S, S].
            noisy: x_t, [B, 3, S, S].
            time: int64 [B].
            prediction: what the output is, "epsilon" or "v".
        """
        keep, drown = self._factors(time, noisy)
        found = keep * noisy - drown * output if prediction == "v" else (noisy - drown * output) / keep
        return found.clamp(-1, 1)

    def _factors(self, time: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        share = self.shares.to(like.device)[time][:, None, None, None]
        return share.sqrt().to(like.dtype), (1 - share).sqrt().to(like.dtype)

    def sample(
        self,
        predict: Callable[[Tensor, Tensor], Tensor],
        condition: Conditioning,
        *,
        prediction: str,
        steps: int,
        eta: float,
        generator: torch.Generator,
    ) -> Tensor:
        """Paint the hole: [B, 3, S, S] in [-1, 1], with the known pixels kept.

        Args:
            predict: (x_t, time int64 [B]) → what the network says.
            condition: the known pixels and the mask.
            prediction: "epsilon" or "v".
            steps: at most as many as in training.
            eta: 1: fresh noise in each step as in DDPM; 0: none (DDIM).
            generator: of the first noise and the fresh one.
        """
        steps = min(steps, len(self.shares))
        self.scheduler.set_timesteps(steps)
        shape, device = condition.known.shape, condition.known.device
        x = torch.randn(shape, generator=generator, device=generator.device).to(device)
        for moment in self.scheduler.timesteps.tolist():
            time = torch.full((shape[0],), moment, device=device)
            image = self.image(predict(x, time), x, time, prediction)
            image = torch.where(condition.mask, image, condition.known)
            fresh = torch.randn(shape, generator=generator, device=generator.device).to(device)
            x = self.scheduler.step(image, moment, x, eta=eta, variance_noise=fresh, return_dict=False)[0]
        return torch.where(condition.mask, x.clamp(-1, 1), condition.known)


def guided(
    model: GLIDE, text: Text, empty: Text | None, condition: Conditioning, scale: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """Guide without a classifier: the output without the caption, plus s times the change by the caption.

    Args:
        model: predicts.
        condition: the known pixels and the mask.
        text: the caption.
        empty: the empty caption; None, like a scale of 1: no guidance.
        scale: s.
    """

    def predict(noisy: Tensor, time: Tensor) -> Tensor:
        with_text = model.predict(text, noisy, time, condition)
        if empty is None or scale == 1:
            return with_text
        without = model.predict(empty, noisy, time, condition)
        return without + scale * (with_text - without)

    return predict
