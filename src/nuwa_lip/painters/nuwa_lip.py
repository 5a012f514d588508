"""NÜWA-LIP as a painter: DF-VQGAN encodes what is known, MP-S2S predicts the hole's tokens, DF-VQGAN decodes."""

from typing import Any

import torch

from nuwa_lip.errors import InputError
from nuwa_lip.fast import speed_up
from nuwa_lip.fast.cores import one_core_if_small
from nuwa_lip.fast.cuda_graphs import disable_cudnn_attention
from nuwa_lip.fast.kernels import compile_step
from nuwa_lip.fast.quantise import is_quantised
from nuwa_lip.models import DFVQGAN, MPS2S, Coarse
from nuwa_lip.painters.painter import OPTIONS, Callback, Needs, Painting, Window
from nuwa_lip.sampling import Sampling, sample
from nuwa_lip.sampling.so_far import shown_by
from nuwa_lip.tokenizer import CaptionTokenizer


class NuwaLip:
    """Holds both stages of the paper's model.

    Args:
        dfvqgan: stage 1, photos to tokens and back.
        mps2s: stage 2, which predicts the hole's tokens.
        tokenizer: captions to word pieces.
        sampling: the settings that a call leaves open.
        card: the model card.
    """

    def __init__(
        self,
        dfvqgan: DFVQGAN,
        mps2s: MPS2S,
        tokenizer: CaptionTokenizer,
        sampling: Sampling | None = None,
        card: str | None = None,
    ) -> None:
        self.dfvqgan, self.mps2s, self.tokenizer = speed_up(dfvqgan), speed_up(mps2s), tokenizer
        self.card, self.compiled = card, False
        side, factor = dfvqgan.config.resolution, dfvqgan.config.factor
        self.needs = Needs(resolution=side, multiple=factor, options=OPTIONS, sampling=sampling or Sampling())

    @property
    def device(self) -> torch.device:
        """Return the device that holds the model."""
        return self.dfvqgan.last_layer.device

    def paint(
        self, window: Window, prompt: str, seeds: list[int], sampling: Sampling, callback: Callback | None
    ) -> Painting:
        """Paint candidates (Eq. 7, 15, 11 and 12); with a first painting, finer ones of it.

        The log-probabilities are NaN if known latents are not finite, whose tokens mean nothing.

        Args:
            window, prompt, seeds, sampling, callback: as for `Painter.paint`.
        """
        image, mask, first = window
        encoding = self.dfvqgan.encode(image, mask)
        assert encoding.token_mask is not None
        caption, none = (self.tokenizer([text]).to(self.device) for text in (prompt, ""))
        seen = None if first is None else torch.where(mask, first, image)
        coarse = None if seen is None else Coarse.of_all(seen, self.dfvqgan.encode(seen).tokens)
        memory = self.mps2s.encode(caption, image, mask, encoding.tokens, encoding.token_mask, coarse=coarse)
        unconditional = self.mps2s.with_captions(memory, none) if sampling.guided else None

        with one_core_if_small(self.mps2s):
            tokens, logp = sample(
                self.mps2s,
                memory,
                num_candidates=len(seeds),
                unconditional=unconditional,
                sampling=sampling,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                graph=self.compiled,
                watch=shown_by(callback, self.dfvqgan, encoding.skips),
            )
        finite = encoding.latents.masked_fill(encoding.token_mask, 0).isfinite().all()
        # one by one, because a candidate's picture must not depend on their number
        images = [self.dfvqgan.decode(one[None], encoding.skips) for one in tokens]
        return Painting(images, torch.where(finite, logp, torch.nan), int(memory.token_mask.sum()))

    def to(self, *args: Any, **kwargs: Any) -> None:
        """Move the model; a move to a GPU turns cuDNN's attention off in this process.

        Raises:
            InputError: the weights have a form that cannot be moved, or the device lacks what is needed.
        """
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None and device.type == "mps":
            raise InputError("Apple's GPU (mps) has no float64, in which tokens are drawn: take the CPU")
        if is_quantised(self.mps2s):
            if device in (None, self.device) and dtype in (None, self.dfvqgan.last_layer.dtype):
                return
            raise InputError(
                "such weights stay as they are, on the CPU: load the model without `weights`, and move that"
            )
        self.dfvqgan.to(*args, **kwargs)
        self.mps2s.to(*args, **kwargs)
        disable_cudnn_attention(self.device)

    def compile(self) -> None:
        """Compile the decoding step.

        Raises:
            InputError: a tool that compiling needs is missing or does not work.
        """
        compile_step(self.mps2s)
        self.compiled = True

    def parts(self) -> dict[str, Any]:
        """Return what `hub.save_model` takes.

        Raises:
            InputError: the weights have a form that cannot be saved.
        """
        if is_quantised(self.mps2s):
            raise InputError("such weights cannot be saved: load the model without `weights`, and save that")
        return {"dfvqgan": self.dfvqgan, "mps2s": self.mps2s, "tokenizer": self.tokenizer, "card": self.card}
