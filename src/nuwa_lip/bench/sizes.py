"""What is measured: the official dimensions, or tiny ones that only show that everything runs."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from nuwa_lip.bench.limits import Limits, precisions
from nuwa_lip.bench.measure import CPU
from nuwa_lip.errors import InputError
from nuwa_lip.fast import speed_up
from nuwa_lip.fast.quantise import Loss
from nuwa_lip.hub import Uninitialised
from nuwa_lip.models import DFVQGAN, MPS2S, DFVQGANConfig, MPS2SConfig
from nuwa_lip.models.memory import Memory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
WEIGHTS = ("packed", "int8", "int4")
"""Forms of the weights (`fast.quantise`) that are worth measuring on a CPU, beside the weights as they are."""
MODEL = "nuwa-lip-mini"
"""The bundled model."""
GPU_BATCH = 16
"""Photos of a training step on a GPU; a few would leave it waiting."""
NOISE = 1 << 20
T = TypeVar("T")
Photo = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""text_ids, image, mask, tokens, token_mask of `MPS2S.encode`."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large everything is that the stages measure."""

    mps2s: MPS2SConfig
    dfvqgan: DFVQGANConfig
    light_dfvqgan: DFVQGANConfig
    """The same token grid at less work."""
    lengths: tuple[int, ...]
    """Tokens in the cache at which a decoding step is timed."""
    candidates: tuple[int, ...] = (1, 4)
    """Numbers of candidates at a time."""
    parallel_steps: int
    """Steps S of the parallel decoding."""
    matrix: int
    """Side of the matrices whose product is the machine's limit."""
    read_bytes: int
    """Bytes of the buffer that is read for the other limit."""
    trained_mps2s: MPS2SConfig
    """For the training step of stage 2."""
    trained_dfvqgan: DFVQGANConfig
    """For the training step of stage 1."""
    training_batch: int
    photos: int
    """Number of photos that the data stage decodes and the evaluation stage makes a benchmark of."""
    photo_size: tuple[int, int]
    """Width and height of these photos."""
    pairs: int
    """Finished photos that are evaluated against their originals."""
    generated: int
    """Tokens that a language model's `generate` is timed over."""
    wide_mps2s: MPS2SConfig
    """A decoder whose layers have the shape of a language model's of seven billion weights; for a GPU."""
    small: bool = False
    """Peers are tiny too."""

    @property
    def defective(self) -> int:
        """Number of defective tokens K, the lower half of the grid."""
        return self.mps2s.grid[0] // 2 * self.mps2s.grid[1]


OFFICIAL = Sizes(
    mps2s=MPS2SConfig.preset("paper"),
    dfvqgan=DFVQGANConfig.preset("paper-f8-8192"),
    light_dfvqgan=DFVQGANConfig.preset("light-f8-8192"),
    lengths=(1, 128, 256, 512),
    parallel_steps=32,
    matrix=4096,
    read_bytes=2 * 10**9,
    trained_mps2s=dataclasses.replace(MPS2SConfig.preset("base"), dropout=0.0),
    trained_dfvqgan=DFVQGANConfig.preset("paper-f8-8192"),
    training_batch=2,
    photos=200,
    photo_size=(640, 480),
    pairs=1000,
    generated=24,
    wide_mps2s=dataclasses.replace(
        MPS2SConfig.preset("paper"), width=4096, heads=32, mlp_ratio=11008 / 4096, decoder_layers=8
    ),
)
SMALL = Sizes(
    mps2s=MPS2SConfig.preset("tiny"),
    dfvqgan=DFVQGANConfig.preset("tiny"),
    light_dfvqgan=dataclasses.replace(DFVQGANConfig.preset("tiny"), channels=(8, 32, 32)),
    lengths=(1, 32),
    parallel_steps=4,
    matrix=64,
    read_bytes=10**6,
    trained_mps2s=dataclasses.replace(MPS2SConfig.preset("tiny"), decoder_layers=1),
    trained_dfvqgan=dataclasses.replace(DFVQGANConfig.preset("tiny"), channels=(16, 32)),
    training_batch=2,
    photos=4,
    photo_size=(64, 48),
    pairs=4,
    generated=2,
    wide_mps2s=MPS2SConfig.preset("tiny"),
    small=True,
)


def sizes_of(small: bool, device: torch.device = CPU) -> Sizes:
    """Give the sizes that are measured on a device."""
    if small:
        return SMALL
    return OFFICIAL if device.type == "cpu" else dataclasses.replace(OFFICIAL, training_batch=GPU_BATCH)


class Form(NamedTuple):
    """The precision of a model, how its weights are kept for decoding, and whether its step is compiled."""

    precision: str
    weights: str | None = None
    """One of `WEIGHTS`; None: as they are."""
    compiled: bool = False

    @property
    def name(self) -> str:
        """Name it as the lines of a report do: "bf16", "bf16 int8 compiled"."""
        return " ".join(filter(None, (self.precision, self.weights, "compiled" * self.compiled)))


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One run, which every stage is given."""

    sizes: Sizes
    limits: Limits
    rounds: int
    device: torch.device = CPU
    skipped: list[str] = field(default_factory=list)
    """Lines about what could not be measured."""
    losses: dict[str, Loss | None] = field(default_factory=dict)
    """By the name of a form of the weights, filled when it is first needed; None where there is no such form here."""
    model: str = MODEL
    """What the stage inpaint repaints with."""

    @property
    def gpu(self) -> bool:
        """Say whether a GPU is measured, not the CPU."""
        return self.device.type != "cpu"

    @property
    def precisions(self) -> list[str]:
        """List the precisions worth measuring here."""
        return precisions(self.device)

    def release(self) -> None:
        """Free the memory that nothing holds any more."""
        gc.collect()  # models of gigabytes that refer to themselves
        if self.gpu:
            torch.cuda.empty_cache()

    def attempt(self, what: str, make: Callable[[], T]) -> T | None:
        """Give what `make` returns, or None and a line that says why it does not run here."""
        try:
            return make()
        except InputError as error:
            self.skipped.append(f"{what}: {error}")
            return None

    def bar(self, cpu: float | None = None, *, gpu: float | None = None) -> float | None:
        """Choose a row's bar by the device that is measured."""
        return gpu if self.gpu else cpu


def step_weights(config: MPS2SConfig) -> tuple[int, int]:
    """Count the weights that a decoding step reads: of the decoder's linear layers, and of the output table."""
    width, hidden = config.width, round(config.width * config.mlp_ratio)
    layer = 6 * width**2 + 3 * width * hidden  # qkv, out, q, out; the gated layer in and out
    return config.decoder_layers * layer, config.codebook_size * width


def random_mps2s(config: MPS2SConfig, precision: str, device: torch.device = CPU) -> MPS2S:
    """Make an MP-S2S whose weights are noise, which is fast.

    Args:
        config: sizes of the model.
        precision: a key of `DTYPES`.
        device: where the model is made.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[precision])
    try:
        with device, Uninitialised():
            model = speed_up(MPS2S(config))
    finally:
        torch.set_default_dtype(default)
    fill(model)
    return model


def random_dfvqgan(config: DFVQGANConfig, precision: str, device: torch.device = CPU) -> DFVQGAN:
    """Make a DF-VQGAN with its usual initial weights.

    Args:
        config: its size.
        precision: fp32 or bf16.
        device: where it runs.
    """
    torch.manual_seed(0)
    return speed_up(DFVQGAN(config)).eval().requires_grad_(False).to(device, DTYPES[precision])


@torch.no_grad()
def fill(model: nn.Module) -> None:
    """Write noise of a model's usual size into every weight (not zeros, which share pages of memory)."""
    noise = torch.randn(NOISE, generator=torch.Generator().manual_seed(0)) * 0.02
    noise = noise.to(next(model.parameters()).device)
    for weight in model.parameters():
        if weight.ndim < 2:
            weight.fill_(0.1)
            continue
        for part in weight.view(-1).split(NOISE):
            part.copy_(noise[: len(part)])
    model.eval().requires_grad_(False)


def picture(size: int) -> tuple[Tensor, Tensor]:
    """Make a photo of noise [1, 3, size, size] in [-1, 1] and a mask whose hole is the middle half of the columns."""
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(1, 1, size, size, dtype=torch.bool)
    mask[..., size // 4 : size * 3 // 4] = True
    return image, mask


def photo(config: MPS2SConfig, batch: int = 1, rows: int | None = None, device: torch.device = CPU) -> Photo:
    """Make photos of noise with a hole in the lower rows, and captions as long as they may be.

    Args:
        config: sizes of the model that reads them.
        batch: number of photos.
        rows: rows of tokens in the hole; None: the lower half.
        device: where the tensors are.
    """
    generator = torch.Generator().manual_seed(0)
    height, width = config.grid
    token_mask = torch.zeros(batch, 1, height, width, dtype=torch.bool)
    token_mask[:, :, height - (height // 2 if rows is None else rows) :] = True
    cell = config.image_size // height
    mask = token_mask.repeat_interleave(cell, 2).repeat_interleave(cell, 3)
    image = torch.rand(batch, 3, config.image_size, config.image_size, generator=generator) * 2 - 1
    tokens = torch.randint(config.codebook_size, (batch, height, width), generator=generator)
    ids = torch.randint(3, config.text_vocab, (batch, config.text_length), generator=generator)
    return ids.to(device), image.to(device), mask.to(device), tokens.to(device), token_mask.to(device)


@torch.inference_mode()
def random_memory(model: MPS2S, rows: int | None = None) -> Memory:
    """Make the memory that a model's encoders would give for a photo, without running them."""
    config = model.config
    ids, _, _, tokens, token_mask = photo(config, rows=rows)
    length = ids.shape[1] + (config.image_size // config.patch_size) ** 2 + tokens[0].numel()
    states = torch.randn(1, length, config.width).to(model.embedding.weight.dtype)
    memory = Memory(states, torch.zeros(1, length, dtype=torch.bool), tokens, token_mask, ids.shape[1])
    return memory.to(model.embedding.weight.device)
