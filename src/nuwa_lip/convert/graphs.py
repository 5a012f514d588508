"""A model as four functions of tensors alone, which `torch.export` and ONNX can hold.

    encode   photo and mask → tokens, their mask, and what the connections need
    decode   tokens, and what the connections need → picture
    memory   caption, photo, mask and known tokens → what the decoder reads
    step     the token before, two positions and the cache → logits of the next token, and the cache with one more row;
             of a model that reads neighbours also the tokens known or decided so far

They compute what `DFVQGAN` and `MPS2S` do, in forms whose shapes do not depend on the number of photos but in the first
axis: a norm of several samples is written out, and the codebook is compared with at once.

Legend: B batch, h w token grid.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nuwa_lip.models import DFVQGAN, MPS2S
from nuwa_lip.models.cache import DecoderCache
from nuwa_lip.models.defect_free import GroupNorm, blank
from nuwa_lip.models.groups import RowInputs
from nuwa_lip.models.quantiser import Quantiser

OPTIONAL = ("shifts", "prior", "known")
"""Parts of a memory that some models have."""


class Part(NamedTuple):
    """One function, with an example of what it takes."""

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    """Examples by name, of two photos."""
    outputs: tuple[str, ...]
    batch_axes: dict[str, int | None]
    """Which axis of an input or output counts photos, where it is not the first; None: none does."""


class WrittenOutNorm(GroupNorm):
    """A group norm without an operation that has its own number of groups for each number of photos."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Normalise x [B, C, H, W] by its known positions, as `defect_free.group_norm` does."""
        if mask is None:
            return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        known, groups = blank(x, mask), (x.shape[0], self.num_groups, -1)
        count = (~mask).sum((1, 2, 3)).clamp(min=1)[:, None, None] * (x.shape[1] // self.num_groups)
        mean = known.reshape(groups).sum(-1, keepdim=True) / count
        centred = (known.reshape(groups) - mean).view(x.shape).masked_fill(mask, 0)
        variance = centred.reshape(groups).square().sum(-1, keepdim=True) / count
        normed = (centred.reshape(groups) * (variance + self.eps).rsqrt()).view(x.shape)
        return normed * self.weight[:, None, None] + self.bias[:, None, None]


class WholeQuantiser(Quantiser):
    """A quantiser that compares all latents at once."""

    def tokens(self, latents: Tensor) -> Tensor:
        """Find the nearest codes of latents [B, n_z, h, w] → int64 [B, h, w]."""
        z = self._on_sphere(latents, 1).permute(0, 2, 3, 1)
        codes = self._on_sphere(self.codebook, 1)
        return (codes.square().sum(1) - 2 * (z @ codes.T)).argmin(-1)


class Function(nn.Module):
    """A function of tensors that holds a model's weights."""

    def __init__(self, model: nn.Module, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.compute = model, compute

    def forward(self, *inputs: Tensor) -> Any:
        """Compute it of what its `Part` names."""
        return self.compute(*inputs)


def plain(model: DFVQGAN) -> DFVQGAN:
    """Copy a tokenizer into forms that can be exported, in float32."""
    other = DFVQGAN(model.config).eval().requires_grad_(False)
    other.load_state_dict(model.state_dict())
    for module in other.modules():
        if isinstance(module, GroupNorm):
            module.__class__ = WrittenOutNorm
    other.quantiser.__class__ = WholeQuantiser
    return other


def tokenizer_parts(model: DFVQGAN) -> list[Part]:
    """Give a tokenizer's two functions."""
    model, side, grid = plain(model), model.config.resolution, model.config.grid
    image, mask = torch.zeros(2, 3, side, side), torch.zeros(2, 1, side, side, dtype=torch.bool)
    mask[..., : side // 2] = True
    connected = model.config.symmetrical_connections

    def encode(image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        encoding = model.encode(image, mask)
        assert encoding.token_mask is not None and encoding.skips is not None
        # the first connection is the photo itself
        skips = [activation for activation, _ in encoding.skips[1:]] if connected else []
        return encoding.tokens, encoding.token_mask, *skips

    def decode(tokens: Tensor, *known: Tensor) -> Tensor:
        if not known:
            return model.decode(tokens)
        image, mask, *activations = known
        masks = model._masks(mask)
        pairs = zip(activations, masks, strict=False)
        return model.decode(tokens, [(image, mask), *pairs])

    tokens, _, *skips = encode(image, mask)
    names = [f"activation_{i}" for i in range(len(skips))]
    known = {"image": image, "mask": mask, **dict(zip(names, skips, strict=True))} if connected else {}
    assert tokens.shape[1:] == (grid, grid)
    return [
        Part("encode", Function(model, encode), {"image": image, "mask": mask}, ("tokens", "token_mask", *names), {}),
        Part("decode", Function(model, decode), {"tokens": tokens, **known}, ("picture",), {}),
    ]


def generator_parts(mps2s: MPS2S) -> list[Part]:
    """Give a generator's two functions: what is known once, and one step of decoding."""
    config = mps2s.config
    model = MPS2S(config).eval().requires_grad_(False)
    model.load_state_dict(mps2s.state_dict())
    model.training = True  # of this module alone: it leaves out checks of values, and its layers stay in eval mode
    decoder, cells = model.decoder, config.grid[0] * config.grid[1]
    side = config.image_size

    def memory(*inputs: Tensor) -> tuple[Tensor, ...]:
        text_ids = inputs[0] if "text" in config.perspectives else None
        cache = decoder.prefill(model.encode(text_ids, *inputs[-4:]), 1, 1)
        keys, values = (torch.stack(part) for part in zip(*cache.memory, strict=True))
        extra = (getattr(cache, name) for name in OPTIONAL)
        return keys, values, cache.memory_mask[:, 0, 0], cache.tokens, *(part for part in extra if part is not None)

    def step(*inputs: Tensor) -> tuple[Tensor, ...]:
        token, position, target, slot, keys, values, memory_keys, memory_values, mask, states, *extra = inputs
        given: dict[str, Any] = dict(zip(has, extra, strict=True))
        layers = [(k.clone(), v.clone()) for k, v in zip(keys, values, strict=True)]
        cache = DecoderCache(
            layers=layers,
            memory=list(zip(memory_keys, memory_values, strict=True)),
            memory_mask=mask[:, None, None],
            tokens=states,
            rotation=rotation,
            **given,
        )
        rows = RowInputs(token, position, target)
        visible = torch.arange(cells)[None] <= slot
        around: Tensor | None = None
        more: tuple[Tensor, ...] = ()
        if decoder.neighbours is not None and cache.known is not None:
            so_far = cache.known.scatter(1, position, token.where(token >= 0, cache.known.gather(1, position)))
            around, more = decoder.neighbours.around(so_far, target), (so_far,)
        logits = decoder.decode_rows(cache, rows, slot, visible, 1, around)[:, 0]
        return logits, torch.stack([k for k, _ in layers]), torch.stack([v for _, v in layers]), *more

    text = {"text_ids": torch.ones(2, config.text_length, dtype=torch.int64)} if "text" in config.perspectives else {}
    known = torch.zeros(2, 1, *config.grid, dtype=torch.bool)
    known[..., 0] = True
    photo = {
        "image": torch.zeros(2, 3, side, side),
        "mask": F.interpolate(known.float(), size=(side, side)).bool(),
        "tokens": torch.zeros(2, *config.grid, dtype=torch.int64),
        "token_mask": known,
    }
    example = decoder.prefill(model.encode(text.get("text_ids"), *photo.values()), 1, 1)
    has = [name for name in OPTIONAL if getattr(example, name) is not None]
    rotation = example.rotation
    read = ("memory_keys", "memory_values", "memory_mask", "token_states", *has)
    made = dict(zip(read, memory(*text.values(), *photo.values()), strict=True))
    cache = torch.zeros(config.decoder_layers, 2, config.heads, cells, config.width // config.heads)
    one = torch.zeros(2, 1, dtype=torch.int64)
    row = {"token": one, "position": one.clone(), "target": one.clone(), "slot": one[0].clone()}
    stacked: dict[str, int | None] = dict.fromkeys(
        ("keys", "values", "memory_keys", "memory_values", "new_keys", "new_values"), 1
    )
    taken = {**row, "keys": cache, "values": cache.clone(), **made}
    given_back = ("logits", "new_keys", "new_values", *(("new_known",) if "known" in has else ()))
    return [
        Part("memory", Function(model, memory), {**text, **photo}, read, stacked),
        Part("step", Function(model, step), taken, given_back, {**stacked, "slot": None}),
    ]


def parts_of(dfvqgan: DFVQGAN, mps2s: MPS2S | None) -> list[Part]:
    """Give all functions of a model; of stage 1 alone the first two."""
    return tokenizer_parts(dfvqgan) + ([] if mps2s is None else generator_parts(mps2s))
