"""The parts of a training: a model with its optimizer and averaged copy, its data, and one step of it.

A training derives from `Stage` and adds how a batch is prepared, the losses, the sheet, and the exported folder.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Muon, Optimizer

from nuwa_lip.errors import InputError
from nuwa_lip.fast.compiling import compile_blocks
from nuwa_lip.fast.cuda_graphs import disable_cudnn_attention
from nuwa_lip.training.schedule import Schedule
from nuwa_lip.training.sharding import ShardedAverage, shard

Model = TypeVar("Model", bound=nn.Module)
Part = TypeVar("Part")
Chance = np.random.Generator | Sequence[np.random.Generator]
"""Source of random numbers: one for all samples of a batch, or each sample's own."""


class Stage(ABC, Generic[Model]):
    """The interface between the loop and a training.

    A checkpoint holds its `modules`, `optimizers`, `buffers` and `tokenizer`.

    Args:
        recipe: the recipe; its schedule's number of steps is final.
        source: photos or a token cache.
        accelerator: device, precision and processes.
        model: the model with its first weights, on its device.
        sharded: spread weights, moments and average over the processes (FSDP2) rather than keep them in each.
    """

    modules: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    buffers: dict[str, Tensor]
    tokenizer: Any = None
    """`CaptionTokenizer`, or None in stage 1."""
    blocks: ClassVar[tuple[type[nn.Module], ...]] = ()
    """Classes of the model's repeated blocks, which can be compiled; empty if it cannot be compiled."""
    skipped: int = 0
    """Batches that are left out before the next one, because they made a figure NaN (`--on-nan rollback`)."""
    sizes_vary: ClassVar[bool] = True
    """Whether the blocks' inputs change their sizes from part to part."""
    mostly_linear: ClassVar[bool] = False
    """Whether nearly all of the model's weights are of linear layers, for which Muon is."""

    def __init__(self, recipe: Any, source: Any, accelerator: Accelerator, model: Model, sharded: bool = False) -> None:
        self.recipe, self.source, self.accelerator, self.raw = recipe, source, accelerator, model
        disable_cudnn_attention(accelerator.device)
        matrices = self.matrices(sharded)
        self.average: Any
        if sharded:
            whole = deepcopy(model).to("cpu" if accelerator.is_main_process else "meta")
            shard(model, repeated(model, self.blocks), accelerator.device, accelerator.mixed_precision == "bf16")
            self.average = ShardedAverage(whole, model, recipe.schedule.ema)
            self.model, self.optimizer = model, make_optimizer(model, recipe.schedule)
        else:
            self.average = Average(deepcopy(model), recipe.schedule.ema)
            self.model, self.optimizer = accelerator.prepare(
                model, make_optimizer(model, recipe.schedule, without=matrices)
            )
        if recipe.schedule.compile:
            self.compile()
        self.modules = {"model": model} if sharded else {"model": model, "average": self.average.model}
        self.optimizers = {"model": self.optimizer}
        if matrices:
            self.optimizers["matrices"] = accelerator.prepare(make_muon(matrices, recipe.schedule))
        self.buffers = {}

    def matrices(self, sharded: bool) -> list[Tensor]:
        """List what Muon optimises.

        Args:
            sharded: whether weights are spread over the processes.

        Raises:
            InputError: the schedule wants Muon, but the model is of convolutions, or of parts of matrices.
        """
        if self.recipe.schedule.optimizer != "muon":
            return []
        if not self.mostly_linear or sharded:
            raise InputError("--schedule.optimizer muon is for MP-S2S with --strategy ddp: take adamw")
        layers = (module for module in self.raw.modules() if isinstance(module, nn.Linear))
        return [layer.weight for layer in layers if layer.weight.requires_grad]

    def compile(self) -> None:
        """Compile the model's blocks, in place; the averaged copy stays as it is.

        Raises:
            InputError: the model has no such blocks, or the tools for compiling are not installed.
        """
        if not self.blocks:
            raise InputError("--schedule.compile is for DF-VQGAN and MP-S2S: leave it out")
        compile_blocks(repeated(self.raw, self.blocks), self.accelerator.device, dynamic=self.sizes_vary)

    def batches(self, first_step: int) -> Iterator[Any]:
        """Yield this process's part of each step's batch for ever, beginning at a step counted from 0."""
        return self.source.batches(
            self.recipe.schedule.batch_size,
            seed=self.recipe.schedule.seed,
            start_step=first_step + self.skipped,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
        )

    def seeds(self, step: int) -> tuple[int, int, int]:
        """Give the seeds of what each process draws for itself in a step; `chances` has those of samples."""
        return self.recipe.schedule.seed, step, self.accelerator.process_index

    def chances(self, purpose: int, step: int, count: int) -> list[np.random.Generator]:
        """Make the random numbers of each of this process's samples, a function of the sample's place in the order.

        So a batch is the same for any number of processes and parts.

        Args:
            purpose: keeps numbers for different ends apart.
            step: step of the training, counted from 0.
            count: number of this process's samples.
        """
        first = (step + self.skipped) * self.recipe.schedule.batch_size + self.accelerator.process_index * count
        return [np.random.default_rng([purpose, self.recipe.schedule.seed, first + row]) for row in range(count)]

    def drop_captions(self, captions: Sequence[str], rng: Chance) -> list[str]:
        """Replace a share of the captions by "", from which the model learns guidance."""
        drawn = rng.random(len(captions)) if isinstance(rng, np.random.Generator) else [own.random() for own in rng]
        share = self.recipe.caption_dropout
        return ["" if number < share else text for number, text in zip(drawn, captions, strict=True)]

    def word_pieces(self, captions: Sequence[str]) -> Tensor:
        """Turn captions into word pieces, int64 [B, T], on the device; cut long ones without a warning for each."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.tokenizer(captions).to(self.accelerator.device)

    @abstractmethod
    def step(self, step: int, batch: Any) -> dict[str, Tensor]:
        """Take one optimizer step, and return figures to log, averaged over the batch of all processes."""

    def learn(self, step: int, parts: Sequence[Part], losses: Callable[[Part], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Take an optimizer step down the sum of the losses.

        Args:
            step: the step, counted from 0.
            parts: the batch in parts, whose gradients are accumulated.
            losses: computes a part's losses by name, each a mean over the part.

        Returns:
            The losses' means over the batch of all processes, and the norm of the gradients.
        """
        figures: dict[str, Tensor] = {}
        for part in self.in_turn(parts, self.model):
            with self.accelerator.autocast():
                found = losses(part)
            self.accelerator.backward(torch.stack(list(found.values())).sum() / len(parts))
            for name, loss in found.items():
                figures[name] = figures.get(name, torch.zeros_like(loss)) + loss.detach() / len(parts)
        own = [self.optimizers[name] for name in ("model", "matrices") if name in self.optimizers]
        figures["gradient"] = self.descend(self.model, *own)
        self.average.update(self.raw, step)
        return self.mean(figures)

    def in_turn(self, parts: Sequence[Part], model: nn.Module) -> Iterator[Part]:
        """Yield a batch's parts in turn; processes exchange gradients in the last part's backward pass only."""
        for i, part in enumerate(parts):
            with nullcontext() if i + 1 == len(parts) else self.accelerator.no_sync(model):
                yield part

    def descend(self, model: nn.Module, *optimizers: Optimizer) -> Tensor:
        """Update the weights by gradients clipped to `schedule.clip`; return the gradients' norm before clipping."""
        norm = self.accelerator.clip_grad_norm_(model.parameters(), self.recipe.schedule.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def mean(self, figures: dict[str, Tensor]) -> dict[str, Tensor]:
        """Average figures over all processes."""
        if self.accelerator.num_processes == 1:
            return figures
        return {name: self.accelerator.reduce(value, "mean") for name, value in figures.items()}

    def held_out_loss(self, step: int, batch: Any) -> Tensor:
        """Compute the loss of a batch that is not learned from, with the averaged weights.

        Args:
            step: seeds what is drawn.
            batch: as `step` takes it.

        Raises:
            InputError: this training has none.
        """
        raise InputError("--validation is for DF-VQGAN and MP-S2S: leave it out")

    @abstractmethod
    def sheet(self) -> Image.Image:
        """Draw samples to look at, with the averaged weights."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the model folder with the averaged weights."""


class Average(Generic[Model]):
    """An exponential moving average of a model's weights, with a shorter memory in the first steps."""

    def __init__(self, model: Model, decay: float) -> None:
        self.model = model.eval().requires_grad_(False)
        self.decay = decay

    @contextmanager
    def on(self, device: torch.device) -> Iterator[Model]:
        """Give the model, which is on its device."""
        yield self.model

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the weights after a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = [p for p in self.model.state_dict().values() if p.is_floating_point()]
        weights = [p.detach() for p in model.state_dict().values() if p.is_floating_point()]
        torch._foreach_lerp_(averages, weights, 1 - decay)


def repeated(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> list[nn.Module]:
    """List a model's blocks of these classes."""
    return [module for module in model.modules() if isinstance(module, kinds)]


def make_optimizer(model: nn.Module, schedule: Schedule, scale: float = 1.0, without: Sequence[Tensor] = ()) -> AdamW:
    """Make AdamW with weight decay on matrices only.

    Args:
        model: the model whose trainable parameters are optimised.
        schedule: learning rate, betas and weight decay.
        scale: factor on the learning rate.
        without: parameters that have another optimizer.
    """
    others = set(without)
    parameters = [p for p in model.parameters() if p.requires_grad and p not in others]
    groups = [
        {
            "params": [p for p in parameters if p.ndim > 1],
            "weight_decay": schedule.weight_decay,
            "scale": scale,
        },
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "scale": scale},
    ]
    return AdamW(groups, lr=schedule.learning_rate * scale, betas=schedule.betas, fused=True)


def make_muon(matrices: Sequence[Tensor], schedule: Schedule) -> Muon:
    """Make Muon, whose steps are as long as AdamW's, so that the schedule's learning rate serves both.

    Args:
        matrices: what it optimises.
        schedule: learning rate and weight decay.
    """
    rate, decay = schedule.learning_rate, schedule.weight_decay
    return Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")


def generator_for(device: torch.device | str, *seeds: int) -> torch.Generator:
    """Make a generator whose random numbers are a function of these seeds."""
    mixed = 0x243F6A8885A308D3
    for seed in seeds:
        mixed = (mixed ^ (seed + 0x9E3779B97F4A7C15)) * 0xBF58476D1CE4E5B9 % 2**64
        mixed ^= mixed >> 31
    return torch.Generator(device).manual_seed(mixed % 2**63)
