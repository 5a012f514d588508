"""What a training costs, before anything is paid: parameters, arithmetic, memory of a GPU, time and money.

One forward pass runs on fake tensors, which have shapes and no numbers: that gives the arithmetic (backward twice the
forward pass, and once more what runs again) and what is kept for gradients. Weights, gradients, moments and the
average are float32, 4 bytes each. The share of a GPU's peak that a training reaches is assumed, or measured by a run.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from nuwa_lip.errors import InputError, first_line
from nuwa_lip.models import DFVQGAN, MPS2S
from nuwa_lip.models.decoder import DecoderBlock
from nuwa_lip.models.losses import generator_loss, mps2s_loss
from nuwa_lip.models.orders import target_tokens
from nuwa_lip.models.perceptual import SqueezeNetFeatures, VGG16Features, lpips
from nuwa_lip.models.transformer import Block
from nuwa_lip.training.critics import make_critic
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
    """Bytes that a sample keeps for its gradients."""
    kept_checkpointed: float
    """The same with gradient checkpointing, and the block that runs again."""
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
            fixed = states(cost, spread) + beside + cost.fixed
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


def _measured(run: Callable[[], Tensor], bf16: bool) -> tuple[float, float]:
    """Run something on fake tensors → its FLOPs, and the bytes that it keeps for gradients."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)  # or another one would get its address
        return tensor

    alive: list[Tensor] = []
    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            run()
    return counter.get_total_flops(), sum(kept.values())


def _mps2s(recipe: MPS2SRecipe, bf16: bool) -> Cost:
    config, batch = recipe.model, 2
    (h, w), side = config.grid, config.image_size
    with FakeTensorMode():
        model = MPS2S(config)
        # a half of the tokens in the mean, as the default of `tokenize` hides
        order = torch.zeros(batch, max(1, h * w // 2), dtype=torch.int64)
        tokens = torch.zeros(batch, h, w, dtype=torch.int64)
        inputs = (
            torch.ones(batch, config.text_length, dtype=torch.int64),
            torch.zeros(batch, 3, side, side),
            torch.zeros(batch, 1, side, side, dtype=torch.bool),
            tokens,
            torch.zeros(batch, 1, h, w, dtype=torch.bool),
            order,
        )

        def run() -> Tensor:
            logits, real = model(*inputs)
            return mps2s_loss(logits, target_tokens(tokens, order), real)

        flops, kept = _measured(run, bf16)
        blocks: list[nn.Module] = [block for block in model.modules() if isinstance(block, Block | DecoderBlock)]
        again, width_kept, largest = _blocks(model, run, blocks, bf16)
        sizes = [sum(p.numel() for p in block.parameters()) for block in blocks]
        parameters = sum(p.numel() for p in model.parameters())
        transient = 2 * order.numel() * config.codebook_size * 4  # the logits' gradient, and its transposed copy
    return Cost(
        parameters=parameters,
        largest_block=parameters - sum(sizes) + max(sizes),
        forward=flops / batch,
        repeated=again / batch,
        kept=(kept + transient) / batch,
        kept_checkpointed=(kept - width_kept + largest + transient) / batch,
        fixed=0,
    )


def _blocks(
    model: nn.Module, run: Callable[[], Tensor], blocks: list[nn.Module], bf16: bool
) -> tuple[float, float, float]:
    """What blocks compute and keep: FLOPs of all, bytes that all keep beside their inputs, most bytes of one."""
    inside = {"flops": 0.0, "kept": 0.0, "most": 0.0}

    def counted(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def measured(*args: Any) -> Tensor:
            result: list[Tensor] = []
            flops, kept = _measured(lambda: result.append(forward(*args)) or result[0], bf16)  # type: ignore[func-returns-value]
            own = kept - args[0].untyped_storage().nbytes()
            inside["flops"] += flops
            inside["kept"] += own
            inside["most"] = max(inside["most"], own)
            return result[0]

        return measured

    for block in blocks:
        block.forward = counted(block.forward)  # type: ignore[method-assign]
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        run()
    return inside["flops"], inside["kept"], inside["most"]


def _dfvqgan(recipe: DFVQGANRecipe, bf16: bool) -> Cost:
    config, batch = recipe.model, 2
    side = config.resolution
    with FakeTensorMode(allow_non_fake_inputs=True):
        model, critic = DFVQGAN(config), make_critic(recipe.adversary)
        features = SqueezeNetFeatures() if recipe.perceptual == "squeezenet" else VGG16Features()
        image = torch.zeros(batch, 3, side, side)
        hole, connect = torch.zeros(batch, 1, side, side, dtype=torch.bool), torch.zeros(batch, dtype=torch.bool)
        crop = recipe.adversary.crop or side

        def run() -> Tensor:
            output = model(image, hole, connect, quantise=True)
            loss = (output.image - image).abs().mean() + output.quantised.codebook_loss
            if recipe.perceptual_weight:
                loss = loss + lpips(features.requires_grad_(False), output.image, image).mean()
            if recipe.adversary.weight:
                loss = loss + generator_loss(critic(output.image[..., :crop, :crop]))
            return loss

        flops, kept = _measured(run, bf16)
        learned = [*model.parameters(), *(critic.parameters() if recipe.adversary.weight else ())]
        fixed = sum(p.numel() for p in features.parameters()) * 4 if recipe.perceptual_weight else 0
        critic_flops = 0.0
        if recipe.adversary.weight:  # then it learns from real and decoded pictures
            critic_flops = 2 * _measured(lambda: critic(image[..., :crop, :crop]), bf16)[0]
    return Cost(
        parameters=sum(p.numel() for p in learned),
        largest_block=0,
        forward=(flops + critic_flops) / batch,
        repeated=0,
        kept=kept / batch,
        kept_checkpointed=kept / batch,
        fixed=fixed,
    )
