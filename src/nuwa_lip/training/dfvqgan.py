"""Stage 1: DF-VQGAN (Eq. 13, 14) from photos alone.

One step: photos are cropped and given holes, encoded by both branches merged (Eq. 9), quantised and decoded,
with the symmetrical connections for a share of those with a hole. The generator is trained on
L_V + L_P + w L_G, with w such that the adversary's gradient at the last layer has the size of the other
losses'; then the discriminator. Accumulated parts give what one big batch gives: all that is nonlinear in the
batch (w, revival of dead codes, perplexity) is computed once a step, of the whole batch.

Legend: B photos of this process, A parts, V codes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nuwa_lip.assets import asset
from nuwa_lip.data.augment import augment
from nuwa_lip.data.masks import random_masks
from nuwa_lip.data.photos import PhotoBatch, Photos
from nuwa_lip.errors import InputError
from nuwa_lip.fast import speed_up
from nuwa_lip.hub import save_model
from nuwa_lip.models import DFVQGAN
from nuwa_lip.models.dfvqgan import Reconstruction
from nuwa_lip.models.losses import adaptive_weight, discriminator_loss, generator_loss
from nuwa_lip.models.perceptual import Features, lpips, squeezenet, vgg16
from nuwa_lip.models.vqgan import AttentionBlock, Downsample, ResidualBlock, Upsample
from nuwa_lip.training.critics import make_critic
from nuwa_lip.training.recipes import DFVQGANRecipe
from nuwa_lip.training.sheet import grey_hole, sample_sheet
from nuwa_lip.training.stage import Stage, generator_for, make_optimizer

SHEET_ROWS = 8
SQUEEZENET = "squeezenet/squeezenet1_1_caffe_fp16.safetensors"


class Batch(NamedTuple):
    """The inputs of a step, or of a part of it."""

    image: Tensor
    """y, [B, 3, H, W] in [-1, 1]"""
    mask: Tensor
    """m, bool [B, 1, H, W]"""
    connect: Tensor
    """bool [B], True = decoded with the symmetrical connections."""

    def parts(self, count: int) -> list[Batch]:
        """Cut the batch into equal parts."""
        return [Batch(*part) for part in zip(*(t.chunk(count) for t in self), strict=True)]


class Phase(NamedTuple):
    """Whether a step quantises, and whether it has an adversary."""

    quantised: bool
    critic: bool
    """The discriminator learns."""
    adversarial: bool
    """The model learns from it."""


class DFVQGANStage(Stage[DFVQGAN]):
    """The first stage as the loop drives it.

    Args:
        recipe: with a schedule whose number of steps is settled.
        photos: what to train on.
        accelerator: device, precision, processes.
        weights: a model to start from (fine-tuning), with the recipe's configuration, or without its refinement or with
            fewer blocks in its decoder's levels.
        max_file_size: largest size in bytes of an exported file.
    """

    blocks = (ResidualBlock, AttentionBlock, Downsample, Upsample)
    sizes_vary = False  # dynamic sizes with channels last are more than `torch.compile` can do

    def __init__(
        self,
        recipe: DFVQGANRecipe,
        photos: Photos,
        accelerator: Accelerator,
        weights: DFVQGAN | None = None,
        max_file_size: int | None = None,
    ) -> None:
        schedule, device = recipe.schedule, accelerator.device
        torch.manual_seed(schedule.seed)
        model = speed_up(DFVQGAN(recipe.model))
        if weights is not None:
            load_weights(model, weights)
        for part in (model.encoder, model.quantiser):
            part.requires_grad_(not recipe.decoder_only)
        self.raw_critic = make_critic(recipe.adversary).to(device)
        model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(recipe, photos, accelerator, model)
        self.critic, self.critic_optimizer = accelerator.prepare(
            self.raw_critic, make_optimizer(self.raw_critic, schedule, recipe.adversary.learning_rate)
        )
        self.modules["critic"] = self.raw_critic
        self.optimizers["critic"] = self.critic_optimizer
        # steps since each code was last used, [V]
        self.buffers["idle"] = torch.zeros(recipe.model.codebook_size, dtype=torch.int64, device=device)
        self.q = load_perceptual(recipe.perceptual).to(device)
        self.max_file_size = max_file_size

    def prepare(self, step: int, photos: PhotoBatch) -> Batch:
        """Draw the crops, holes and connections of a step."""
        recipe, size = self.recipe, self.recipe.model.resolution
        device, rng = self.accelerator.device, self.chances(1, step, len(photos.images))
        image = augment(photos.images.to(device, non_blocking=True), photos.aspects, size, recipe.augmentation, rng)
        mask = random_masks(len(image), size, size, recipe.masks, rng)
        connect = torch.tensor([own.random() < recipe.connect for own in rng]) & mask.flatten(1).any(1)
        image = image.contiguous(memory_format=torch.channels_last)
        return Batch(image, mask.to(device), connect.to(device))

    def step(self, step: int, batch: PhotoBatch) -> dict[str, Tensor]:
        """Take one optimizer step of the generator and, once the adversary has begun, of the discriminator."""
        phase = self.phase(step)
        parts = self.prepare(step, batch).parts(self.recipe.schedule.accumulate)
        outputs, figures = self._generator_step(step, parts, phase)
        if phase.critic:
            figures["discriminator"] = self._critic_step(step, parts, [output.image for output in outputs])
        figures |= self._codebook_step(step, outputs)
        self.average.update(self.raw, step)
        return figures

    def phase(self, step: int) -> Phase:
        """Tell what a step does, counted from 0."""
        recipe, adversary, steps = self.recipe, self.recipe.adversary, self.recipe.schedule.steps
        return Phase(
            quantised=step >= recipe.unquantised * steps,
            critic=adversary.weight > 0 and step >= (adversary.start - adversary.head_start) * steps,
            adversarial=adversary.weight > 0 and step >= adversary.start * steps,
        )

    def losses(self, part: Batch, output: Reconstruction) -> dict[str, Tensor]:
        """Compute the terms of L_V and L_P (Eq. 13) of one part, unweighted."""
        difference = output.image - part.image
        pixel = difference.abs() if self.recipe.pixel_loss == "l1" else difference.square()
        losses = {
            "pixel": pixel.mean(),
            "codebook": output.quantised.codebook_loss,
            "commitment": output.quantised.commitment_loss,
        }
        if self.recipe.perceptual_weight:
            losses["perceptual"] = lpips(self.q, output.image, part.image).mean()
        return losses

    @torch.no_grad()
    def held_out_loss(self, step: int, batch: PhotoBatch) -> Tensor:
        """Compute L_V + L_P of held-out photos, without the codebook's terms and the adversary."""
        part = self.prepare(step, batch)
        with self.accelerator.autocast():
            return self._reconstruction(self.losses(part, self.average.model(*part)))

    def _reconstruction(self, losses: dict[str, Tensor]) -> Tensor:
        """What the decoder's last layer sees of L_V + L_P."""
        perceptual = losses.get("perceptual", torch.zeros_like(losses["pixel"]))
        return self.recipe.pixel_weight * losses["pixel"] + self.recipe.perceptual_weight * perceptual

    def _generator_step(
        self, step: int, parts: list[Batch], phase: Phase
    ) -> tuple[list[Reconstruction], dict[str, Tensor]]:
        """Gradients of all parts, then one step → what was decoded, and the mean of each loss."""
        recipe, outputs = self.recipe, []
        figures: dict[str, Tensor] = {}
        # the adversary's weight needs the gradients of all parts before the first backward pass
        ready = [self._forward(step, parts[0], phase)] if len(parts) == 1 else []
        weight: Tensor | None = None
        pulls: list[Tensor] = []
        if phase.adversarial:
            weight, pulls = self._pulls(ready or (self._forward(step, part, phase) for part in parts))
        for i, part in enumerate(self.in_turn(parts, self.model)):
            output, losses = ready[0] if ready else self._forward(step, part, phase)
            loss = self._reconstruction(losses) if weight is None else (output.image * pulls[i]).sum()
            loss = loss + recipe.codebook_weight * phase.quantised * (
                losses["codebook"] + recipe.model.commitment * losses["commitment"]
            )
            self.accelerator.backward(loss / len(parts))
            outputs.append(_detach(output))
            for name, value in losses.items():
                figures[name] = figures.get(name, torch.zeros_like(value)) + value.detach() / len(parts)
        figures["gradient"] = self.descend(self.model, self.optimizer)
        if weight is not None:
            figures["adversary_weight"] = weight
        return outputs, self.mean(figures)

    def _forward(self, step: int, part: Batch, phase: Phase) -> tuple[Reconstruction, dict[str, Tensor]]:
        """One part through model and losses."""
        with self.accelerator.autocast():
            output = self.model(*part, quantise=phase.quantised)
            losses = self.losses(part, output)
            if phase.adversarial:
                # D's own gradients are not wanted here
                weights = {name: p.detach() for name, p in self.raw_critic.named_parameters()}
                crop = self._crop(step, output.image)
                losses["adversarial"] = generator_loss(torch.func.functional_call(self.raw_critic, weights, (crop,)))
        return output, losses

    def _crop(self, step: int, images: Tensor) -> Tensor:
        """The square of the pictures that is judged in a step: the same one for decoded and for real ones."""
        side = self.recipe.adversary.crop
        if not side:
            return images
        rng = np.random.default_rng([4, self.recipe.schedule.seed, step])
        top, left = (int(rng.integers(n - side + 1)) for n in images.shape[2:])
        return images[:, :, top : top + side, left : left + side]

    def _pulls(self, passes: Iterable[tuple[Reconstruction, dict[str, Tensor]]]) -> tuple[Tensor, list[Tensor]]:
        """Find w from gradients at the decoder's last layer, over all parts of all processes.

        Returns:
            w, and each part's gradient of L_V + L_P + w L_G at its pictures [B, 3, H, W], from where on it is one
            backward pass.
        """
        last = self.raw.last_layer
        totals, found = torch.zeros(2, *last.shape, device=last.device), []
        for output, losses in passes:
            pair = []
            for loss, total in zip((self._reconstruction(losses), losses["adversarial"]), totals, strict=True):
                at_picture = torch.autograd.grad(loss, output.image, retain_graph=True)[0]
                total += torch.autograd.grad(output.image, last, at_picture, retain_graph=True)[0]
                pair.append(at_picture)
            found.append(pair)
        reconstruction, adversarial = self.accelerator.reduce(totals / len(found), "mean")
        weight = self.recipe.adversary.weight * adaptive_weight(reconstruction, adversarial)
        return weight, [first + weight * second for first, second in found]

    def _critic_step(self, step: int, parts: list[Batch], fakes: list[Tensor]) -> Tensor:
        total = torch.zeros((), device=self.accelerator.device)
        for part, fake in self.in_turn(list(zip(parts, fakes, strict=True)), self.critic):
            with self.accelerator.autocast():
                pictures = self._crop(step, torch.cat([part.image, fake]))
                real, decoded = self.critic(pictures).chunk(2)
                loss = discriminator_loss(real, decoded)
            self.accelerator.backward(loss / len(parts))
            total += loss.detach() / len(parts)
        self.descend(self.critic, self.critic_optimizer)
        return self.accelerator.reduce(total, "mean")

    @torch.no_grad()
    def _codebook_step(self, step: int, outputs: list[Reconstruction]) -> dict[str, Tensor]:
        """Usage and perplexity of the batch; codes that were idle for long are revived.

        A batch of few tokens cannot use all codes, so beside its usage stands what that can be at most.
        """
        size, idle = self.recipe.model.codebook_size, self.buffers["idle"]
        tokens = torch.cat([output.quantised.tokens.flatten() for output in outputs])
        counts = self.accelerator.reduce(torch.bincount(tokens, minlength=size), "sum")
        idle.copy_(torch.where(counts > 0, 0, idle + 1))
        share = counts / counts.sum()
        entropy = -(share * share.clamp(min=1e-12).log()).sum()
        dead = self._dead(step)
        if dead.any() and not self.recipe.decoder_only:
            latents = torch.cat([output.encoding.latents for output in outputs])
            latents = self.accelerator.gather(latents.contiguous())
            self.raw.quantiser.revive(dead, latents, generator_for("cpu", 3, self.recipe.schedule.seed, step))
            idle.masked_fill_(dead, 0)
        usage, most = (counts > 0).float().mean(), counts.sum().clamp(max=size) / size
        return {"batch_usage": usage, "batch_usage_at_most": most, "perplexity": entropy.exp()}

    def _dead(self, step: int) -> Tensor:
        """Codes to replace after a step, bool [V]: the idle ones; all before the first quantised step."""
        idle = self.buffers["idle"]
        if not self.phase(step).quantised:
            return torch.full_like(idle, self.phase(step + 1).quantised, dtype=torch.bool)
        return (idle >= self.recipe.revive_after) & (self.recipe.revive_after > 0)

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """Draw photos, holes, reconstructions without a hole, and oracle inpainting (true tokens in the hole)."""
        recipe, model = self.recipe, self.average.model
        photos = next(self.source.batches(SHEET_ROWS, seed=recipe.schedule.seed))
        batch = self.prepare(10**9, photos)
        pair = model.encode_pair(batch.image, batch.mask)
        columns = {
            "photo": batch.image,
            "reconstruction": model.decode(pair.whole.tokens),
            "hole": grey_hole(batch.image, batch.mask),
            "oracle inpainting": model.decode(pair.tokens, pair.known.skips),
        }
        return sample_sheet(columns, photos.captions)

    def export(self, folder: Path) -> None:
        """Write the model folder (stage 1: DF-VQGAN only)."""
        save_model(folder, dfvqgan=self.average.model, max_file_size=self.max_file_size)


def load_weights(model: DFVQGAN, weights: DFVQGAN) -> None:
    """Start from a model's weights; a refinement or decoder blocks that it lacks start as what changes nothing.

    Raises:
        InputError: the weights are of another configuration.
    """
    state = weights.state_dict()
    missing, unexpected = model.load_state_dict(state, strict=False)
    blocks = {".".join([*name.split(".")[:4], ""]) for name in missing if name.startswith("decoder.levels.")}
    added = tuple(block for block in blocks if not any(name.startswith(block) for name in state))
    if unexpected or not all(name.startswith(("decoder.refinement.", *added)) for name in missing):
        odd = [*missing, *unexpected][0]
        raise InputError(f"the weights do not fit the configuration: {odd}; keep their sizes, or add decoder blocks")
    for name, parameter in model.named_parameters():
        if name.startswith(added) and (".conv2." in name or ".out." in name):
            nn.init.zeros_(parameter)


def load_perceptual(name: str) -> Features:
    """Load Q by its name, "squeezenet", "vgg16" or "auto", or from a safetensors file of either network.

    Raises:
        InputError: the weights are not on this machine, or the file holds other weights.
    """
    if name == "squeezenet":
        return squeezenet(load_file(asset(SQUEEZENET)))
    if name in ("auto", "vgg16"):
        path = _cached_vgg16()
        if path is None and name == "auto":
            return squeezenet(load_file(asset(SQUEEZENET)))
        if path is None:
            raise InputError(
                "the weights of VGG-16 are not at hand: fetch model.safetensors of timm/vgg16.tv_in1k from "
                "the hub, and give its path as --perceptual"
            )
        return vgg16(load_file(path))
    if not Path(name).is_file():
        raise InputError(f"there is no file {name}; --perceptual is squeezenet, vgg16, auto, or a safetensors file")
    try:
        state = load_file(name)
        return vgg16(state) if "features.28.weight" in state else squeezenet(state)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise InputError(f"{name} does not hold the weights of SqueezeNet v1.1 or VGG-16 as safetensors") from error


def _cached_vgg16() -> str | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache("timm/vgg16.tv_in1k", "model.safetensors")
    return path if isinstance(path, str) else None


def _detach(output: Reconstruction) -> Reconstruction:
    """Detach an output from its graph, which would keep every part's activations."""
    quantised = output.quantised._replace(codes=output.quantised.codes.detach())
    encoding = output.encoding._replace(latents=output.encoding.latents.detach(), skips=None)
    return Reconstruction(output.image.detach(), encoding, quantised)
