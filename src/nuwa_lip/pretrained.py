"""A whole model, both stages and its tokenizer: loading, moving, compiling and saving it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch

from nuwa_lip import hub
from nuwa_lip.errors import InputError, first_line
from nuwa_lip.fast import speed_up
from nuwa_lip.fast.cuda_graphs import disable_cudnn_attention
from nuwa_lip.fast.kernels import compile_step
from nuwa_lip.fast.quantise import is_quantised, quantise
from nuwa_lip.models import DFVQGAN, MPS2S
from nuwa_lip.sampling import Sampling
from nuwa_lip.tokenizer import CaptionTokenizer


class Pretrained:
    """Holds the parts of a model.

    Args:
        dfvqgan: stage 1, photos to tokens and back.
        mps2s: stage 2, which predicts the hole's tokens.
        tokenizer: captions to word pieces.
        sampling: the settings that a call leaves open.
        card: the model card, which is saved with the model.
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
        self.sampling = sampling or Sampling()
        self.card = card
        self.compiled = False

    @classmethod
    def from_pretrained(
        cls, name: str | Path, torch_dtype: torch.dtype | None = None, weights: str | None = None
    ) -> Self:
        """Load a model: bundled name, local folder, or hub id; safetensors only.

        Args:
            name: "nuwa-lip-mini", a folder, or "organisation/name".
            torch_dtype: precision of the weights, float32 by default.
            weights: form of the weights that every decoding step on a CPU reads (`nuwa_lip.fast.quantise`): "packed"
                changes the speed only, "int8", "int8-weights" and "int4" have fewer bits and are best with
                torch_dtype=torch.bfloat16; None leaves them as they are.

        Raises:
            InputError: there is no such model, a part of it is missing, or there is no such form.
        """
        if not isinstance(name, (str, Path)):
            raise InputError(f"the model is {name!r}: give a bundled name, a model folder, or a hub id")
        if torch_dtype is not None and not (isinstance(torch_dtype, torch.dtype) and torch_dtype.is_floating_point):
            raise InputError(f"torch_dtype is {torch_dtype!r}: give a floating-point type, such as torch.bfloat16")
        if weights is not None and not isinstance(weights, str):
            raise InputError(f"there are no weights called {weights!r}: give a name, or None")
        parts = hub.load_model(name, dtype=torch_dtype or torch.float32)
        if parts.mps2s is None or parts.tokenizer is None:
            raise InputError(f"{name} holds a DF-VQGAN only (stage 1)")
        if weights is not None:
            quantise(parts.mps2s, weights)
        return cls(parts.dfvqgan, parts.mps2s, parts.tokenizer, parts.sampling, parts.card)

    @property
    def resolution(self) -> int:
        """Return S, the side of the working window in pixels."""
        return self.dfvqgan.config.resolution

    @property
    def device(self) -> torch.device:
        """Return the device that holds the model."""
        return self.dfvqgan.last_layer.device

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move the model, as `torch.nn.Module.to` does; photos stay on the CPU.

        A move to a GPU turns cuDNN's attention off in this process (`fast.cuda_graphs.disable_cudnn_attention`).

        Raises:
            InputError: the weights have a form that cannot be moved, or the device lacks what is needed.
        """
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None and device.type == "mps":
            raise InputError("Apple's GPU (mps) has no float64, in which tokens are drawn: take the CPU")
        if is_quantised(self.mps2s):
            if device in (None, self.device) and dtype in (None, self.dfvqgan.last_layer.dtype):
                return self
            raise InputError(
                "such weights stay as they are, on the CPU: load the model without `weights`, and move that"
            )
        try:
            self.dfvqgan.to(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:  # of a library without this kind of device, or of a driver
            if device is None or device.type in ("cpu", "meta"):
                raise
            raise InputError(
                f"the device {device} cannot be used, leave the model where it is: {first_line(error)}"
            ) from error
        self.mps2s.to(*args, **kwargs)
        disable_cudnn_attention(self.device)
        return self

    def compile(self) -> Self:
        """Compile the decoding step (`fast.kernels.compile_step`): the first photos take longer, all others less.

        On a GPU a step of one token also becomes a CUDA graph (`fast.cuda_graphs`).

        Raises:
            InputError: a tool that compiling needs is missing or does not work.
        """
        compile_step(self.mps2s)
        self.compiled = True
        return self

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Write a model folder; the options are those of `hub.save_model`: dtype, max_file_size.

        Raises:
            InputError: the weights have a form that cannot be saved, or the folder cannot be written.
        """
        hub.save_model(folder, **self._parts(), **options)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, **options: Any) -> str:
        """Upload the model to the Hugging Face hub and return its address.

        Args:
            repo_id: "organisation/name".
            private: whether others cannot see it; None: as the organisation has it.
            options: those of `save_pretrained`.

        Raises:
            InputError: the weights have a form that cannot be saved, or the hub refuses.
        """
        return hub.push_to_hub(repo_id, private=private, **self._parts(), **options)

    def _parts(self) -> dict[str, Any]:
        if is_quantised(self.mps2s):
            raise InputError("such weights cannot be saved: load the model without `weights`, and save that")
        names = ("dfvqgan", "mps2s", "tokenizer", "sampling", "card")
        return {name: getattr(self, name) for name in names}
