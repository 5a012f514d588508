"""Stage 2: MP-S2S (Eq. 15) from a token cache. DF-VQGAN is frozen and only draws the sheets.

Legend: B photos of this process, A parts, K defective tokens, V codes.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nuwa_lip.errors import InputError
from nuwa_lip.fast import speed_up
from nuwa_lip.fast.compiling import prepare
from nuwa_lip.hub import ModelParts, load_model, save_model
from nuwa_lip.models import MPS2S
from nuwa_lip.models.bert import BertText
from nuwa_lip.models.decoder import DecoderBlock
from nuwa_lip.models.groups import group_sizes, rows_of_each
from nuwa_lip.models.losses import mps2s_loss
from nuwa_lip.models.orders import ORDERS, order_by, order_keys, target_tokens
from nuwa_lip.models.perspectives import Coarse
from nuwa_lip.models.transformer import Block
from nuwa_lip.painters.second_pass import soft
from nuwa_lip.sampling import sample
from nuwa_lip.tokenizer import CaptionTokenizer
from nuwa_lip.training.contrast import contrast_loss, other_captions
from nuwa_lip.training.dropout import SampleDropout, seeds_of
from nuwa_lip.training.ready_made_text import Remembered, start_from_bert
from nuwa_lip.training.recipes import MPS2SRecipe
from nuwa_lip.training.sheet import grey_hole, sample_sheet
from nuwa_lip.training.stage import Chance, Stage
from nuwa_lip.training.tokens import TokenBatch, TokenCache, token_mask

SHEET_ROWS = 6
SHEET_STEPS = 32  # parallel steps of the sheet's samples: a look, not a measurement
APART = ("prior", "neighbours")
"""What of `trained` learns apart from the decoder, in one process, within minutes (`prior`, `neighbours`)."""
REDUCED = (1.5, 5.0)
"""How many times a painting is enlarged that a second pass is trained to paint anew."""
MOST_CAPTIONED = 10**6
"""Most photos whose captions a tokenizer is trained on, evenly spread over the cache."""
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
        weights: a complete model to start from (fine-tuning); its tokenizer is kept, unless the recipe has another
            text encoder: then what reads captions begins anew.
        max_file_size: largest size in bytes of an exported file.
        sharded: spread the model over the processes.

    Raises:
        InputError: a contrast is asked for, but nothing decodes by captions.
    """

    blocks = (Block, DecoderBlock)
    mostly_linear = True
    sizes_vary = True  # the longest caption, and the most defective tokens

    def __init__(
        self,
        recipe: MPS2SRecipe,
        cache: TokenCache,
        accelerator: Accelerator,
        weights: ModelParts | None = None,
        max_file_size: int | None = None,
        sharded: bool = False,
    ) -> None:
        if recipe.contrast and ("text" not in recipe.model.perspectives or recipe.trained in APART):
            raise InputError(
                f"contrast is {recipe.contrast}, but what is trained decodes no tokens by captions: leave it 0"
            )
        self.cache, self.max_file_size = cache, max_file_size
        self.dfvqgan = load_model(cache.folder / "dfvqgan", need_mps2s=False).dfvqgan
        torch.manual_seed(recipe.schedule.seed)
        model = speed_up(MPS2S(recipe.model))
        # dropout differs between samples, and so do then the states of hidden photos
        model.hidden_once = accelerator.device.type == "cpu" and not recipe.model.dropout
        if recipe.text_encoder is not None:
            self.tokenizer = start_from_bert(model, Path(recipe.text_encoder))
        elif weights is not None and weights.tokenizer is not None:
            self.tokenizer = weights.tokenizer
        else:
            captions = chain.from_iterable(cache.captions(MOST_CAPTIONED))
            sizes = recipe.model.text_vocab, recipe.model.text_length
            self.tokenizer = CaptionTokenizer.train(captions, *sizes)
        if weights is not None and weights.mps2s is not None:
            start_from(model, weights.mps2s)
        elif recipe.start_from_codes:
            model.start_from_codes(self.dfvqgan.quantiser.codes)
        super().__init__(recipe, cache, accelerator, model.to(accelerator.device), sharded)
        if isinstance(model.text, BertText):
            model.text.requires_grad_(False)
            model.text.forward = Remembered(model.text.forward)  # type: ignore[method-assign]
        freeze(model, recipe.trained)
        self.dropout = SampleDropout(model)
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
        rng = self.chances(8, step, len(batch.captions))
        inputs = self.prepare(batch, rng)
        seeds = seeds_of(rng).to(self.accelerator.device)
        # like with like: each part is padded to its own largest K, and hidden photos are alike
        hidden = inputs[4].flatten(1).all(1)
        by_size = (inputs[6] + inputs[4][0].numel() * ~hidden).argsort(stable=True)
        parts = [t[by_size].chunk(self.recipe.schedule.accumulate) for t in (*inputs, seeds)]
        pace = self.pace(np.random.default_rng([9, self.recipe.schedule.seed, step]))

        def losses(part: tuple[Tensor, ...]) -> dict[str, Tensor]:
            self.dropout.seeds = part[-1]  # until the part's backward pass, which may run blocks again
            return self.losses(part[:-1], pace)

        return self.learn(step, list(zip(*parts, strict=True)), losses)

    def pace(self, rng: np.random.Generator) -> Pace | None:
        """Draw how many tokens are predicted together; None: one at a time."""
        if rng.random() >= self.recipe.parallel:
            return None
        return Pace(MOST_AT_ONCE ** rng.uniform(math.log(2, MOST_AT_ONCE), 1), str(rng.choice(["cosine", "constant"])))

    def prepare(self, batch: TokenBatch, rng: Chance) -> tuple[Tensor, ...]:
        """The model's arguments: captions as word pieces, some of them dropped, and an order of each sample.

        Then, how many tokens of that order are predicted, and the fields of `Coarse` if second passes are trained. With
        a contrast, the word pieces are [B, 2, T]: of the photo's own caption, and of another.
        """
        device, count = self.accelerator.device, len(batch.captions)
        rng = rng.spawn(count) if isinstance(rng, np.random.Generator) else rng
        captions = self.drop_captions(batch.captions, rng)
        masks, tokens = batch.masks.to(device), batch.tokens.to(device)
        defective = token_mask(masks, self.cache.factor)
        # as many of each batch of all processes, in places that chance has filled
        first = self.accelerator.process_index * count
        place = (first + torch.arange(count, device=device) + 0.5) / (count * self.accelerator.num_processes)
        everything = place < self.recipe.everything
        told = self.recipe.everything + self.recipe.caption_only
        hidden = (place < told)[:, None, None]
        wanted = defective | everything[:, None, None, None]
        order, counts = self._orders(wanted, rng)
        images = batch.images.to(device)
        # of those with everything hidden too, but none that only the caption tells of
        second = self._second_pass(images, masks | hidden[..., None], everything | (place >= told), rng)
        return (
            self._word_pieces(captions, rng),
            images,
            masks | hidden[..., None],
            torch.where(hidden, batch.whole.to(device), tokens),
            defective | hidden[..., None],
            order,
            counts,
            *second,
        )

    @torch.no_grad()
    def held_out_loss(self, step: int, batch: TokenBatch) -> Tensor:
        """Compute Eq. 15 of held-out photos, one token at a time."""
        ids, *inputs = self.prepare(batch, self.chances(8, step, len(batch.captions)))
        ids = ids[:, 0] if self.recipe.contrast else ids
        with self.accelerator.autocast():
            return self.losses((ids, *inputs), model=self.average.model)["loss"]

    def losses(
        self, part: tuple[Tensor, ...], pace: Pace | None = None, model: nn.Module | None = None
    ) -> dict[str, Tensor]:
        """Compute Eq. 15, nats for each token that is asked for, and the weighted contrast.

        Args:
            part: what `prepare` returns.
            pace: how many tokens are predicted together; None: one at a time.
            model: the one that predicts; None: the one that learns.
        """
        ids, images, masks, tokens, defective, order, counts, *second = part
        each = counts.tolist()
        order = order[:, : max(each)]
        rows = None if pace is None else rows_of_each([pace.sizes(count) for count in each])
        coarse = Coarse(*second) if second else None
        ids, others = ids.unbind(1) if ids.ndim == 3 else (ids, None)
        inputs = images, masks, tokens, defective, order, rows
        logits, _ = (model or self.model)(ids, *inputs, coarse=coarse, others=others)
        real = torch.arange(order.shape[1], device=order.device) < counts[:, None]
        targets = target_tokens(tokens, order)
        if others is None:
            return {"loss": mps2s_loss(logits, targets, real)}
        own, other = logits.chunk(2)
        contrast = contrast_loss(own, other, targets, real)
        return {"loss": mps2s_loss(own, targets, real), "contrast": self.recipe.contrast * contrast}

    def _word_pieces(self, captions: list[str], rng: Sequence[np.random.Generator]) -> Tensor:
        """Captions as word pieces, [B, T]; with a contrast [B, 2, T], beside others of the batch of all processes."""
        if not self.recipe.contrast:
            return self.word_pieces(captions)
        others = other_captions(captions, gather_object(captions), rng)
        return self.word_pieces([*captions, *others]).unflatten(0, (2, len(captions))).transpose(0, 1)

    @torch.no_grad()
    def _second_pass(
        self, images: Tensor, masks: Tensor, may: Tensor, rng: Sequence[np.random.Generator]
    ) -> tuple[Tensor, ...]:
        """Draw which samples show a first painting, and imitate it: the fields of `Coarse`, or nothing."""
        if not self.recipe.refine:
            return ()
        painted = may & torch.tensor([own.random() < self.recipe.refine for own in rng], device=images.device)
        factors = [own.uniform(*REDUCED) for own in rng]
        copies = torch.cat([soft(one[None], factor).clamp(-1, 1) for one, factor in zip(images, factors, strict=True)])
        seen = torch.where(masks, copies, images)[painted]
        tokens = torch.zeros(len(images), *self.recipe.model.grid, dtype=torch.long, device=images.device)
        if len(seen):
            tokens[painted] = self.dfvqgan.to(images.device).encode(seen).tokens
        return copies, tokens, painted

    def _orders(self, defective: Tensor, rng: Sequence[np.random.Generator]) -> tuple[Tensor, Tensor]:
        """An order for each sample, by the recipe's shares: int64 [B, K], and how many of it are predicted, [B]."""
        weights = np.array([self.recipe.orders.get(name, 0.0) for name in ORDERS])
        choice = torch.tensor([own.choice(len(ORDERS), p=weights / weights.sum()) for own in rng])
        choice, cells = choice.to(defective.device), defective[0].numel()
        drawn = torch.from_numpy(np.stack([own.random(cells) for own in rng])).to(defective.device)
        by_name = {"random": drawn} | {n: order_keys(n, defective) for n in ORDERS if n != "random"}
        keys = torch.stack([by_name[name] for name in ORDERS])  # [orders, B, N]
        order = order_by(keys[choice, torch.arange(len(defective))], defective)[0]
        counts = defective.flatten(1).sum(1)
        if self.recipe.first_tokens is not None:
            few = counts.clamp(max=self.recipe.first_tokens)
            counts = torch.where(choice == ORDERS.index("random"), few, counts)
        return order, counts

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """Draw photos, holes, and results with the caption and without."""
        batch = self.cache.batch(10**6, SHEET_ROWS, seed=self.recipe.schedule.seed)
        device = self.accelerator.device
        dfvqgan, image, mask = self.dfvqgan.to(device), batch.images.to(device), batch.masks.to(device)
        known = dfvqgan.encode(image, mask)
        assert known.token_mask is not None
        columns = {"photo": image, "hole": grey_hole(image, mask)}
        with self.average.on(device) as model:
            for heading, captions in (("with the caption", batch.captions), ("without", [""] * SHEET_ROWS)):
                ids = self.word_pieces(captions)
                tokens, _ = sample(
                    model,
                    model.encode(ids, image, mask, known.tokens, known.token_mask),
                    temperature=0.9,
                    top_p=0.9,
                    num_inference_steps=SHEET_STEPS,
                    generator=torch.Generator().manual_seed(0),
                )
                columns[heading] = dfvqgan.decode(tokens, known.skips)
        return sample_sheet(columns, batch.captions)

    def export(self, folder: Path) -> None:
        """Write the complete model folder."""
        save_model(
            folder,
            dfvqgan=self.dfvqgan,
            mps2s=self.average.model,
            tokenizer=self.tokenizer,
            sampling=self.recipe.sampling,
            max_file_size=self.max_file_size,
        )


def freeze(model: MPS2S, trained: str) -> None:
    """Let only a part of a model learn, by the recipe's `trained`; no gradients go through blocks that stay."""
    if trained == "all":
        return
    model.embedding.requires_grad_(False)  # the token encoder reads it
    for encoder in (model.pixels, model.tokens):
        if encoder is not None:
            encoder.requires_grad_(False)
    if trained == "decoder":
        return
    model.decoder.requires_grad_(False)
    learns = model.decoder.neighbours if trained == "neighbours" else model.decoder.prior
    if learns is not None:
        learns.requires_grad_(True)
    for block in model.decoder.layers:
        block.forward = torch.no_grad()(block.forward)  # type: ignore[method-assign]


def start_from(model: MPS2S, other: MPS2S) -> None:
    """Take over the weights of another model that this one has too, in the same size."""
    state = model.state_dict()
    fitting = {name: value for name, value in other.state_dict().items() if name in state}
    fitting = {name: value for name, value in fitting.items() if value.shape == state[name].shape}
    if isinstance(model.text, BertText) and not isinstance(other.text, BertText):
        fitting = {name: value for name, value in fitting.items() if not name.startswith("text")}
    model.load_state_dict(state | fitting)


def run_again_for_gradients(model: MPS2S, *, compiled: bool = False) -> None:
    """Add gradient checkpointing to the blocks, in place; gradients stay the same, dropout included.

    Args:
        model: it keeps its weights.
        compiled: compile what runs again; a block compiled by `compile_blocks` would run eagerly here.
    """
    for block in model.modules():
        if isinstance(block, Block | DecoderBlock):
            forward = torch.compile(block.forward, dynamic=True) if compiled else block.forward
            block.forward = partial(checkpoint, forward, use_reentrant=False)  # type: ignore[method-assign]
