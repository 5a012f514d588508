"""What a training costs, before anything is paid: parameters, arithmetic, memory of a GPU, time and money.

A step runs on fake tensors, which have shapes and no numbers: that gives the arithmetic (backward twice the forward
pass, and once more what runs again) and the memory at the peak, operation by operation (`counting`). Weights,
gradients, moments and the average are float32, 4 bytes each. The share of a GPU's peak that a training reaches is
assumed, or measured by a run.
"""

import re
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nuwa_lip.errors import InputError, first_line
from nuwa_lip.models import DFVQGAN, MPS2S
from nuwa_lip.models.decoder import DecoderBlock
from nuwa_lip.models.dfvqgan import Reconstruction
from nuwa_lip.models.losses import discriminator_loss, generator_loss, mps2s_loss
from nuwa_lip.models.orders import target_tokens
from nuwa_lip.models.perceptual import SqueezeNetFeatures, VGG16Features, lpips
from nuwa_lip.models.transformer import Block
from nuwa_lip.training.contrast import contrast_loss
from nuwa_lip.training.counting import count, flops_of
from nuwa_lip.training.critics import make_critic
from nuwa_lip.training.mps2s import run_again_for_gradients
from nuwa_lip.training.recipes import DFVQGANRecipe, MPS2SRecipe

GB = 10**9
ROOM = 0.92
"""Share of a GPU's memory that can be planned with; the rest is fragmentation, CUDA's own and buffers of NCCL."""
UTILISATION = 0.35
"""Share of the peak that a training is assumed to reach if nothing was measured."""


@dataclass(frozen=True)
class Kind:
    """A kind of GPU."""

    memory: float
    """Bytes."""
    peak: float
    """FLOP/s of dense matrix products in bf16 (V100: fp16; CPU core: fp32)."""
    price: float
    """US dollars an hour, a usual price on demand in 2026; an assumption."""


KINDS = {
    "V100-32G": Kind(32 * 2**30, 125e12, 1.2),
    "A100-40G": Kind(40 * 2**30, 312e12, 1.3),
    "A100-80G": Kind(80 * 2**30, 312e12, 1.8),
    "L4-24G": Kind(24 * 2**30, 121e12, 0.7),
    "RTX4090-24G": Kind(24 * 2**30, 165e12, 0.5),
    "H100-80G": Kind(80 * 2**30, 989e12, 2.8),
    "H200-141G": Kind(141 * 10**9, 989e12, 3.5),
    "B200-180G": Kind(180 * 10**9, 2250e12, 5.5),
}


@dataclass(frozen=True)
class Cost:
    """What one training step costs, apart from the machine."""

    parameters: int
    """That learn."""
    largest_block: int
    """Parameters that are together at a time when the others are spread (FSDP): those of the root, and of a block."""
    forward: float
    """FLOPs of a sample's forward pass."""
    repeated: float
    """FLOPs of it that run again with gradient checkpointing."""
    kept: float
    """Bytes of a sample at the peak: what it keeps for its gradients, and what is at hand then."""
    kept_checkpointed: float
    """The same with gradient checkpointing."""
    casts: float
    """Bytes of the weights' copies in bf16; with FSDP those of a block at a time are in `largest_block`."""
    fixed: float
    """Bytes of what does not learn (Q)."""


@dataclass(frozen=True)
class Way:
    """One way to put a training on a GPU."""

    name: str
    part: int
    """Samples that a GPU takes at a time."""
    memory: float
    """Bytes at the peak."""
    flops: float
    """Of a step of all GPUs."""


def parse_gpus(text: str) -> tuple[int, str]:
    """Read "64xA100-80G".

    Raises:
        InputError: it is not of this form, or the kind is unknown.
    """
    match = re.fullmatch(r"(\d+)x(.+)", text)
    kinds = {name.lower(): name for name in KINDS}
    if not match or int(match[1]) < 1 or match[2].lower() not in kinds:
        raise InputError(f"--gpus {text!r} is not like 64xA100-80G; kinds: {', '.join(KINDS)}")
    return int(match[1]), kinds[match[2].lower()]


def cost_of(recipe: Any, bf16: bool = True) -> Cost:
    """Compute what a step of a recipe costs.

    Raises:
        InputError: the recipe is of another stage.
    """
    if isinstance(recipe, MPS2SRecipe):
        return _mps2s(recipe, bf16)
    if isinstance(recipe, DFVQGANRecipe):
        return _dfvqgan(recipe, bf16)
    raise InputError("plans are for dfvqgan and mps2s")


def states(cost: Cost, spread: int, gradients: bool = True) -> float:
    """Compute the bytes of weights, moments and average, and gradients, on each GPU.

    Args:
        cost: of the recipe.
        spread: GPUs over which all of it is spread.
        gradients: whether gradients are among it.
    """
    return cost.parameters * (20 if gradients else 16) / spread


def ways(cost: Cost, recipe: Any, gpus: int, memory: float) -> list[Way]:
    """List the ways to train on so many GPUs, each with the largest part of a batch that fits; part 0: none does.

    Args:
        cost: of the recipe.
        recipe: whose batch is shared.
        gpus: number of GPUs.
        memory: bytes of each.
    """
    found, batch = [], recipe.schedule.batch_size
    share = max(1, batch // gpus)
    spreads = [("ddp", 1)] + ([("fsdp", gpus)] if gpus > 1 and isinstance(recipe, MPS2SRecipe) else [])
    for name, spread in spreads:
        for checkpointing in (False, True) if isinstance(recipe, MPS2SRecipe) else (False,):
            kept = cost.kept_checkpointed if checkpointing else cost.kept
            # DDP has its gradients twice, in buckets too; FSDP gathers weights and gradients of one block at a time
            beside = 4 * cost.parameters if gpus > 1 and spread == 1 else 8 * cost.largest_block * (spread > 1)
            fixed = states(cost, spread) + beside + cost.fixed + cost.casts * (spread == 1)
            fitting = [n for n in range(1, share + 1) if share % n == 0 and fixed + n * kept <= ROOM * memory]
            part = max(fitting, default=0)
            flops = batch * (3 * cost.forward + checkpointing * cost.repeated)
            label = f"{name}{', blocks run again' if checkpointing else ''}"
            found.append(Way(label, part, fixed + max(part, 1) * kept, flops))
    return found


def recommended(found: list[Way]) -> Way | None:
    """Choose the way with the least arithmetic, and among equals the least traffic; None: nothing fits."""
    return min(
        (way for way in found if way.part), key=lambda way: (way.flops, way.name.startswith("fsdp")), default=None
    )


def arithmetic_of(recipe: Any, device: torch.device, processes: int) -> tuple[float, float]:
    """Compute the FLOPs of a sample and the FLOP/s of all GPUs; 0 where they are not known, as on a CPU.

    Args:
        recipe: of any stage.
        device: of this process.
        processes: number of them, each with a GPU of this kind.
    """
    if device.type != "cuda":
        return 0, 0
    name = torch.cuda.get_device_name(device).replace(" ", "")
    peak = next((kind.peak for key, kind in KINDS.items() if key.split("-")[0] in name), 0.0)
    try:
        return 3 * cost_of(recipe).forward, peak * processes
    except (InputError, RuntimeError, NotImplementedError) as error:  # of a model that fake tensors cannot follow
        warnings.warn(f"no MFU is shown, for a step cannot be counted: {first_line(error)}", stacklevel=2)
        return 0, 0


def _mps2s(recipe: MPS2SRecipe, bf16: bool) -> Cost:
    config, batch = recipe.model, 2
    (h, w), side = config.grid, config.image_size
    with FakeTensorMode():

        def run(model: MPS2S, count: int) -> Tensor:
            order, tokens = (torch.zeros(batch, *size, dtype=torch.int64) for size in ((count,), (h, w)))
            text = torch.ones(batch, config.text_length, dtype=torch.int64)
            image, hole = torch.zeros(batch, 3, side, side), torch.zeros(batch, 1, side, side, dtype=torch.bool)
            defective = torch.zeros(batch, 1, h, w, dtype=torch.bool)
            others = text if recipe.contrast else None
            logits, real = model(text, image, hole, tokens, defective, order, others=others)
            targets = target_tokens(tokens, order)
            if others is None:
                return mps2s_loss(logits, targets, real)
            own, other = logits.chunk(2)
            return mps2s_loss(own, targets, real) + contrast_loss(own, other, targets, real)

        model, again = MPS2S(config), MPS2S(config)
        run_again_for_gradients(again)
        # a part is padded to its most defective tokens: all, if of one photo all is hidden
        plain, checkpointed = (count(partial(run, one, h * w), one.parameters(), bf16) for one in (model, again))
        blocks = [block for block in model.modules() if isinstance(block, Block | DecoderBlock)]
        inside = [_counted(block) for block in blocks]
        forward = flops_of(partial(run, model, max(1, h * w // 2)))  # the mean: `tokenize` hides a half
        sizes = [sum(p.numel() for p in block.parameters()) for block in blocks]
        parameters = sum(p.numel() for p in model.parameters())
    return Cost(
        parameters=parameters,
        largest_block=parameters - sum(sizes) + max(sizes),
        forward=forward / batch,
        repeated=sum(map(sum, inside)) / batch,
        kept=plain.held / batch,
        kept_checkpointed=checkpointed.held / batch,
        casts=plain.casts,
        fixed=0,
    )


def _counted(block: nn.Module) -> list[float]:
    """Let a block note its arithmetic whenever it runs."""
    forward, noted = block.forward, []

    def counted(*args: Any) -> Tensor:
        result: list[Tensor] = []
        noted.append(flops_of(lambda: result.append(forward(*args))))
        return result[0]

    block.forward = counted  # type: ignore[method-assign]
    return noted


def _dfvqgan(recipe: DFVQGANRecipe, bf16: bool) -> Cost:
    config, batch = recipe.model, 2
    side = config.resolution
    with FakeTensorMode(allow_non_fake_inputs=True):
        model, critic = DFVQGAN(config), make_critic(recipe.adversary)
        features = SqueezeNetFeatures() if recipe.perceptual == "squeezenet" else VGG16Features()
        features.requires_grad_(False)
        image = torch.zeros(batch, 3, side, side)
        hole, connect = torch.zeros(batch, 1, side, side, dtype=torch.bool), torch.zeros(batch, dtype=torch.bool)
        crop = recipe.adversary.crop or side

        def losses() -> tuple[Reconstruction, Tensor, Tensor | None]:
            output = model(image, hole, connect, quantise=True)
            loss = (output.image - image).abs().mean()
            if recipe.perceptual_weight:
                loss = loss + lpips(features, output.image, image).mean()
            if not recipe.adversary.weight:
                return output, loss, None
            weights = {name: p.detach() for name, p in critic.named_parameters()}
            judged = torch.func.functional_call(critic, weights, (output.image[..., :crop, :crop],))
            return output, loss, generator_loss(judged)

        def generate() -> Tensor:
            """With the adversary's weight, as `DFVQGANStage` finds it: from gradients at the pictures."""
            output, loss, adversarial = losses()
            for one in (loss, adversarial) if adversarial is not None else ():
                pull = torch.autograd.grad(one, output.image, retain_graph=True)[0]
                torch.autograd.grad(output.image, model.last_layer, pull, retain_graph=True)
                loss = (output.image * pull).sum()
            return loss + output.quantised.codebook_loss + output.quantised.commitment_loss

        def judge() -> Tensor:
            pictures = torch.cat([image, image])[..., :crop, :crop]
            return discriminator_loss(*critic(pictures).chunk(2))

        forward, counted = flops_of(losses), count(generate, model.parameters(), bf16)
        learned, held, casts = [*model.parameters()], counted.held, counted.casts
        if recipe.adversary.weight:  # then it learns from real and decoded pictures
            learned += critic.parameters()
            forward += flops_of(judge)
            judged = count(judge, critic.parameters(), bf16)
            held, casts = max(held, judged.held), max(casts, judged.casts)
        fixed = sum(p.numel() for p in features.parameters()) * 4 if recipe.perceptual_weight else 0
    return Cost(
        parameters=sum(p.numel() for p in learned),
        largest_block=0,
        forward=forward / batch,
        repeated=0,
        kept=held / batch,
        kept_checkpointed=held / batch,
        casts=casts,
        fixed=fixed,
    )
