"""Stage 2: MP-S2S (Eq. 15) from a token cache. DF-VQGAN is frozen and only draws the sheets.

Legend: B photos of this process, A parts, K defective tokens, V codes.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nuwa_lip.fast.compiling import prepare
from nuwa_lip.hub import ModelParts, load_model, save_model
from nuwa_lip.models import MPS2S
from nuwa_lip.models.groups import group_sizes, rows_of_each
from nuwa_lip.models.mps2s import mps2s_loss
from nuwa_lip.models.orders import ORDERS, order_by, order_keys, target_tokens
from nuwa_lip.models.transformer import Block
from nuwa_lip.sampling import sample
from nuwa_lip.tokenizer import CaptionTokenizer
from nuwa_lip.training.recipes import MPS2SRecipe
from nuwa_lip.training.runs import RunFolder
from nuwa_lip.training.sheet import grey_hole, sample_sheet
from nuwa_lip.training.stage import Stage, generator_for
from nuwa_lip.training.tokens import TokenBatch, TokenCache, token_mask

SHEET_ROWS = 6
SHEET_STEPS = 32  # parallel steps of the sheet's samples: a look, not a measurement
MOST_AT_ONCE = 32.0
"""Largest average number of tokens a step that training prepares for."""


class Pace(NamedTuple):
    """The number of tokens that a decoding step decides, as one training step imitates it."""

    tokens: float
    """Average number of tokens a decoding step."""
    schedule: str
    """One of `groups.SCHEDULES`."""

    def sizes(self, tokens: int) -> list[int]:
        """Compute the sizes of the groups of K tokens."""
        return group_sizes(tokens, max(1, round(tokens / self.tokens)), self.schedule)


class MPS2SStage(Stage[MPS2S]):
    """The second stage as the loop drives it.

    Args:
        recipe: with a schedule whose number of steps is settled.
        cache: what to train on.
        accelerator: device, precision, processes.
        weights: a complete model to start from (fine-tuning); its tokenizer is kept.
        max_file_size: largest size in bytes of an exported file.
    """

    blocks = (Block,)
    sizes_vary = True  # the longest caption, and the most defective tokens

    def __init__(
        self,
        recipe: MPS2SRecipe,
        cache: TokenCache,
        accelerator: Accelerator,
        weights: ModelParts | None = None,
        max_file_size: int | None = None,
    ) -> None:
        self.cache, self.max_file_size = cache, max_file_size
        self.dfvqgan = load_model(cache.folder / "dfvqgan", need_mps2s=False).dfvqgan
        if weights is not None and weights.tokenizer is not None:
            self.tokenizer = weights.tokenizer
        else:
            captions = chain.from_iterable(cache.captions)
            sizes = recipe.model.text_vocab, recipe.model.text_length
            self.tokenizer = CaptionTokenizer.train(captions, *sizes)
        torch.manual_seed(recipe.schedule.seed)
        model = MPS2S(recipe.model)
        if weights is not None and weights.mps2s is not None:
            model.load_state_dict(weights.mps2s.state_dict())
        elif recipe.start_from_codes:
            model.start_from_codes(self.dfvqgan.quantiser.codes)
        super().__init__(recipe, cache, accelerator, model.to(accelerator.device))
        if recipe.gradient_checkpointing:
            run_again_for_gradients(model, compiled=recipe.schedule.compile)

    def compile(self) -> None:
        """Compile the blocks; with gradient checkpointing `run_again_for_gradients` compiles them instead."""
        if self.recipe.gradient_checkpointing:
            prepare(self.accelerator.device)
        else:
            super().compile()

    def step(self, step: int, batch: TokenBatch) -> dict[str, Tensor]:
        """Take one optimizer step."""
        seeds = self.seeds(step)
        torch.manual_seed(generator_for("cpu", 7, *seeds).initial_seed())  # dropout
        inputs = self.prepare(batch, np.random.default_rng([8, *seeds]))
        # like with like: each part is padded to its own largest K
        by_size = inputs[4].flatten(1).sum(1).argsort(stable=True)
        parts = list(zip(*(t[by_size].chunk(self.recipe.schedule.accumulate) for t in inputs), strict=True))
        pace = self.pace(np.random.default_rng([9, *seeds]))
        return self.learn(step, parts, lambda part: {"loss": self.loss(part, pace)})

    def pace(self, rng: np.random.Generator) -> Pace | None:
        """Draw how many tokens are predicted together; None: one at a time."""
        if rng.random() >= self.recipe.parallel:
            return None
        return Pace(MOST_AT_ONCE ** rng.uniform(math.log(2, MOST_AT_ONCE), 1), str(rng.choice(["cosine", "constant"])))

    def prepare(self, batch: TokenBatch, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """The model's arguments: captions as word pieces, some of them dropped, and an order of each sample."""
        device = self.accelerator.device
        captions = self.drop_captions(batch.captions, rng)
        masks = batch.masks.to(device)
        defective = token_mask(masks, self.cache.factor)
        order = self._orders(defective, rng)
        ids = self.word_pieces(captions)
        return ids, batch.images.to(device), masks, batch.tokens.to(device), defective, order

    def loss(self, part: tuple[Tensor, ...], pace: Pace | None = None) -> Tensor:
        """Eq. 15, nats for each defective token."""
        *inputs, tokens, defective, order = part
        counts = defective.flatten(1).sum(1).tolist()
        order = order[:, : max(counts)]
        rows = None if pace is None else rows_of_each([pace.sizes(count) for count in counts])
        logits, real = self.model(*inputs, tokens, defective, order, rows)
        return mps2s_loss(logits, target_tokens(tokens, order), real)

    def _orders(self, defective: Tensor, rng: np.random.Generator) -> Tensor:
        """An order for each sample, by the recipe's shares: int64 [B, K]."""
        weights = np.array([self.recipe.orders.get(name, 0.0) for name in ORDERS])
        choice = torch.from_numpy(rng.choice(len(ORDERS), size=len(defective), p=weights / weights.sum()))
        generator = generator_for("cpu", int(rng.integers(2**31)))
        keys = torch.stack([order_keys(name, defective, generator) for name in ORDERS])  # [orders, B, N]
        return order_by(keys[choice.to(keys.device), torch.arange(len(defective))], defective)[0]

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """Draw photos, holes, and results with the caption and without."""
        batch = self.cache.batch(10**6, SHEET_ROWS, seed=self.recipe.schedule.seed)
        device = self.accelerator.device
        dfvqgan, image, mask = self.dfvqgan.to(device), batch.images.to(device), batch.masks.to(device)
        known = dfvqgan.encode(image, mask)
        assert known.token_mask is not None
        columns = {"photo": image, "hole": grey_hole(image, mask)}
        for heading, captions in (("with the caption", batch.captions), ("without", [""] * SHEET_ROWS)):
            ids = self.word_pieces(captions)
            memory = self.average.model.encode(ids, image, mask, known.tokens, known.token_mask)
            tokens, _ = sample(
                self.average.model,
                memory,
                temperature=0.9,
                top_p=0.9,
                num_inference_steps=SHEET_STEPS,
                generator=torch.Generator().manual_seed(0),
            )
            columns[heading] = dfvqgan.decode(tokens, known.skips)
        return sample_sheet(columns, batch.captions)

    def export(self, run: RunFolder) -> None:
        """Write the complete model folder."""
        save_model(
            run.path / "model",
            dfvqgan=self.dfvqgan,
            mps2s=self.average.model,
            tokenizer=self.tokenizer,
            sampling=self.recipe.sampling,
            max_file_size=self.max_file_size,
        )


def run_again_for_gradients(model: MPS2S, *, compiled: bool = False) -> None:
    """Add gradient checkpointing to the blocks, in place; gradients stay the same, dropout included.

    Args:
        model: it keeps its weights.
        compiled: compile what runs again; a block compiled by `compile_blocks` would run eagerly here.
    """
    for block in model.modules():
        if isinstance(block, Block):
            forward = torch.compile(block.forward, dynamic=True) if compiled else block.forward
            block.forward = partial(checkpoint, forward, use_reentrant=False)  # type: ignore[method-assign]
