"""A whole model as the pipeline holds it: loading, moving, compiling and saving its painter."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch

from nuwa_lip import hub
from nuwa_lip.errors import InputError, first_line
from nuwa_lip.models import DFVQGAN, MPS2S
from nuwa_lip.painters.loading import load_painter
from nuwa_lip.painters.nuwa_lip import NuwaLip
from nuwa_lip.painters.painter import OPTIONS, Painter
from nuwa_lip.sampling import Sampling
from nuwa_lip.tokenizer import CaptionTokenizer


class Pretrained:
    """Holds a painter; made of its parts it is NÜWA-LIP.

    Args:
        dfvqgan: stage 1, photos to tokens and back.
        mps2s: stage 2, which predicts the hole's tokens.
        tokenizer: captions to word pieces.
        sampling: the settings that a call leaves open.
        card: the model card, which is saved with the model.
    """

    painter: Painter
    """What fills the windows."""
    sampling: Sampling
    """The settings that a call leaves open."""
    options: frozenset[str] = OPTIONS
    """Options of a call that mean something to the painter."""

    def __init__(
        self,
        dfvqgan: DFVQGAN,
        mps2s: MPS2S,
        tokenizer: CaptionTokenizer,
        sampling: Sampling | None = None,
        card: str | None = None,
    ) -> None:
        self._hold(NuwaLip(dfvqgan, mps2s, tokenizer, sampling, card))

    def _hold(self, painter: Painter) -> None:
        self.painter, self.sampling, self.options = painter, painter.needs.sampling, painter.needs.options

    @classmethod
    def from_painter(cls, painter: Painter) -> Self:
        """Make a pipeline whose windows any painter fills (`nuwa_lip.painters.painter`)."""
        pipe = cls.__new__(cls)
        pipe._hold(painter)
        return pipe

    @classmethod
    def from_pretrained(
        cls, name: str | Path, torch_dtype: torch.dtype | None = None, weights: str | None = None
    ) -> Self:
        """Load a model: bundled name, local folder, or hub id; safetensors only.

        Nothing is fetched: a hub id is looked up in the hub's cache alone, where `nuwa-lip pull` puts models.

        Args:
            name: "nuwa-lip-mini", a folder, or "organisation/name"; for others' models also a short name
                (`painters.known`) or an ONNX file.
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
        return cls.from_painter(load_painter(name, torch_dtype, weights))

    @property
    def dfvqgan(self) -> DFVQGAN:
        """Return stage 1."""
        return self._part("dfvqgan")

    @property
    def mps2s(self) -> MPS2S:
        """Return stage 2."""
        return self._part("mps2s")

    @property
    def tokenizer(self) -> CaptionTokenizer:
        """Return what reads captions."""
        return self._part("tokenizer")

    @property
    def card(self) -> str | None:
        """Return the model card, if there is one."""
        return getattr(self.painter, "card", None)

    def _part(self, name: str) -> Any:
        if not hasattr(self.painter, name):
            raise InputError(f"this model has no {name}: it is of the kind {type(self.painter).__name__}, not NÜWA-LIP")
        return getattr(self.painter, name)

    @property
    def resolution(self) -> int:
        """Return S, the side of the working window in pixels."""
        return self.painter.needs.resolution

    @property
    def device(self) -> torch.device:
        """Return the device that holds the model."""
        return self.painter.device

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move the model, as `torch.nn.Module.to` does; photos stay on the CPU.

        A move of NÜWA-LIP to a GPU turns cuDNN's attention off in this process
        (`fast.cuda_graphs.disable_cudnn_attention`).

        Raises:
            InputError: the weights have a form that cannot be moved, or the device lacks what is needed.
        """
        device = torch._C._nn._parse_to(*args, **kwargs)[0]
        try:
            self.painter.to(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:  # of a library without this kind of device, or of a driver
            if device is None or device.type in ("cpu", "meta"):
                raise
            raise InputError(
                f"the device {device} cannot be used, leave the model where it is: {first_line(error)}"
            ) from error
        return self

    def compile(self) -> Self:
        """Compile the decoding step (`fast.kernels.compile_step`): the first photos take longer, all others less.

        On a GPU a step of one token also becomes a CUDA graph (`fast.cuda_graphs`).

        Raises:
            InputError: a tool that compiling needs is missing or does not work, or the model is another's.
        """
        self._ours("compiled").compile()
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
        return self._ours("saved").parts() | {"sampling": self.sampling}

    def _ours(self, done: str) -> NuwaLip:
        if not isinstance(self.painter, NuwaLip):
            raise InputError(
                f"this model cannot be {done}: it is of the kind {type(self.painter).__name__}, not NÜWA-LIP"
            )
        return self.painter
