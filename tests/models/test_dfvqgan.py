"""DF-VQGAN: nothing known depends on the hole, and the connections give known pixels back to the bit."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nuwa_lip.errors import InputError
from nuwa_lip.models import DFVQGAN, DFVQGANConfig
from nuwa_lip.models.dfvqgan import Encoding
from nuwa_lip.models.vqgan import AttentionBlock, Blocks, Downsample, ResidualBlock

quick = settings(max_examples=12, deadline=None)
SMALL = DFVQGANConfig(
    resolution=32,
    channels=(8, 8, 16),
    attention_levels=(1,),
    groups=4,
    latent_channels=8,
    codebook_size=32,
    codebook_dim=4,
)
MASKS = ("none", "all", "pixel", "checkerboard", "half", "random")
FILLS = (0.0, 0.7, float("inf"), float("-inf"), float("nan"))


def make(**changes: object) -> DFVQGAN:
    """A model with random weights; norms are not the identity, codes lie apart."""
    torch.manual_seed(0)
    model = DFVQGAN(dataclasses.replace(SMALL, **changes))  # type: ignore[arg-type]
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    nn.init.normal_(model.quantiser.codebook)
    return model.eval()


def picture(B: int, H: int, W: int, seed: int = 0) -> Tensor:
    return torch.rand(B, 3, H, W, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def hole(kind: str, B: int, H: int, W: int) -> Tensor:
    mask = torch.zeros(B, 1, H, W, dtype=torch.bool)
    if kind == "all":
        mask[:] = True
    elif kind == "pixel":
        mask[..., H // 2 + 1, W // 3] = True
    elif kind == "checkerboard":
        mask[:] = (torch.arange(H)[:, None] + torch.arange(W)) % 2 == 0
    elif kind == "half":
        mask[..., : W // 2 + 3] = True
    elif kind == "random":  # blocks, so that some tokens stay known
        cells = torch.rand(B, 1, -(-H // 8), -(-W // 8), generator=torch.Generator().manual_seed(B)) < 0.5
        mask = F.interpolate(cells.float(), scale_factor=8).bool()[..., :H, :W]
    return mask


def known(encoding: Encoding) -> list[Tensor]:
    """All that is known of an encoding, the rest blank."""
    assert encoding.token_mask is not None and encoding.skips is not None
    mask = encoding.token_mask
    return [
        encoding.latents.masked_fill(mask, 0),
        encoding.tokens.masked_fill(mask[:, 0], 0),
        mask,
        *(h.masked_fill(m, 0) for h, m in encoding.skips),
        *(m for _, m in encoding.skips),
    ]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def assert_alike(a: list[Tensor], b: list[Tensor]) -> None:
    """Tokens and masks are equal, the rest up to the order of sums: it may depend on a sample's place in its batch."""
    for x, y in zip(a, b, strict=True):
        tolerance = 1e-5 if x.is_floating_point() else 0
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def small() -> DFVQGAN:
    return make().requires_grad_(False)


# ---- what stands in the hole


@given(
    kind=st.sampled_from(MASKS),
    fill=st.sampled_from(FILLS),
    size=st.sampled_from([(32, 32), (32, 48), (4, 12)]),
    way=st.sampled_from(["inference", "gradients", "bf16"]),
    patch=st.sampled_from([1, 2, 4]),
)
@quick
def test_known_tokens_latents_and_skips_ignore_the_hole(
    kind: str, fill: float, size: tuple[int, int], way: str, patch: int
) -> None:
    size = (size[0] * patch, size[1] * patch)
    model, image, mask = make(patch=patch), picture(2, *size), hole(kind, 2, *size)
    if way == "bf16":
        model = model.to(torch.bfloat16)
    with torch.set_grad_enabled(way == "gradients"):
        clean = model.encode(image, mask)
        filled = model.encode(image.masked_fill(mask, fill), mask)
        mixed = model.encode(torch.where(mask, picture(2, *size, seed=1), image), mask)
    assert equal(known(clean), known(filled)) and equal(known(clean), known(mixed))
    assert clean.latents.isfinite().all() and filled.latents.isfinite().all()
    assert torch.equal(clean.skips[0][0], image.masked_fill(mask, 0))  # type: ignore[index]


@pytest.mark.parametrize("size", [32, 128, 512])
def test_sizes_from_32_to_512(size: int) -> None:
    model = make(channels=(4, 4, 8, 8), attention_levels=())
    image, mask = picture(1, size, size), hole("random", 1, size, size)
    with torch.inference_mode():
        clean = model.encode(image, mask)
        filled = model.encode(image.masked_fill(mask, math.nan), mask)
    assert equal(known(clean), known(filled))
    assert clean.tokens.shape == (1, size // 8, size // 8)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("kind", [ResidualBlock, AttentionBlock, Downsample, Blocks, nn.Conv2d])
def test_nan_in_the_hole_of_activations_goes_nowhere(kind: type[nn.Module], grad: bool) -> None:
    """After every block, level and convolution of the encoder, the hole's activations become NaN."""
    model, image, mask = make(), picture(2, 32, 32), hole("random", 2, 32, 32)
    masks = {m.shape[-1]: m for m in (mask, F.max_pool2d(mask.float(), 2) > 0, F.max_pool2d(mask.float(), 4) > 0)}
    poisoned = 0

    def poison(module: nn.Module, args: object, out: Tensor) -> Tensor:
        nonlocal poisoned
        poisoned += 1
        return out.clone().masked_fill_(masks[out.shape[-1]], math.nan)  # as they lie in memory

    with torch.set_grad_enabled(grad):
        clean = model.encode(image, mask)
        for module in model.encoder.modules():
            if isinstance(module, kind):
                module.register_forward_hook(poison)
        assert equal(known(clean), known(model.encode(image, mask)))
    assert poisoned >= 2


def test_it_is_not_the_zeroed_picture_encoded_plainly(small: DFVQGAN) -> None:
    image, mask = picture(2, 32, 32), hole("half", 2, 32, 32)
    with torch.inference_mode():
        ours, zeroed = small.encode(image, mask), small.encode(image.masked_fill(mask, 0))
    there = ~mask[:, 0, ::4, ::4] & ~ours.token_mask[:, 0]  # type: ignore[index]
    assert (ours.latents - zeroed.latents).abs().amax(1)[there].min() > 1e-3
    assert (ours.tokens != zeroed.tokens)[there].any()


def test_nothing_known_and_everything_known(small: DFVQGAN) -> None:
    image = picture(2, 32, 32)
    with torch.inference_mode():
        nothing = small.encode(image, hole("all", 2, 32, 32))
        assert nothing.latents.isfinite().all() and nothing.token_mask.all()  # type: ignore[union-attr]
        assert small.decode(nothing.tokens, nothing.skips).isfinite().all()
        everything, plain = small.encode(image, hole("none", 2, 32, 32)), small.encode(image)
    torch.testing.assert_close(everything.latents, plain.latents, rtol=1e-5, atol=1e-5)
    assert torch.equal(everything.tokens, plain.tokens)
    assert plain.token_mask is None and plain.skips is None


# ---- the plain network


class Twin:
    """A VQGAN in plain torch, reading a DFVQGAN's weights: no masks, no rows, nothing in place."""

    def __init__(self, model: DFVQGAN) -> None:
        self.model, self.config = model, model.config

    def block(self, b: ResidualBlock, x: Tensor) -> Tensor:
        h = b.conv1(F.silu(nn.GroupNorm.forward(b.norm1, x)))
        h = b.conv2(F.silu(nn.GroupNorm.forward(b.norm2, h)))
        return (x if b.shortcut is None else b.shortcut(x)) + h

    def attention(self, a: AttentionBlock, x: Tensor) -> Tensor:
        h = F.group_norm(x.contiguous(), a.norm.num_groups, a.norm.weight, a.norm.bias, a.norm.eps).flatten(2).mT
        q, k, v = (F.linear(h, c.weight[:, :, 0, 0], c.bias)[:, None] for c in (a.q, a.k, a.v))
        h = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return F.linear(h, a.out.weight[:, :, 0, 0], a.out.bias).mT.reshape(x.shape) + x

    def run(self, blocks: nn.Module, x: Tensor) -> Tensor:
        for b in blocks:  # type: ignore[attr-defined]
            x = self.block(b, x) if isinstance(b, ResidualBlock) else self.attention(b, x)
        return x

    def encode(self, image: Tensor) -> Tensor:
        e = self.model.encoder
        h = e.conv_in(image)
        for level, down in zip(e.levels, [*e.downs, None], strict=True):
            h = self.run(level, h)
            if down is not None:
                h = down.conv(F.pad(h, (0, 1, 0, 1)))
        h = self.run(e.middle, h)
        return e.to_code(e.conv_out(F.silu(nn.GroupNorm.forward(e.norm_out, h))))

    def decode(self, codes: Tensor, skips: list[tuple[Tensor, Tensor]] | None = None) -> Tensor:
        d = self.model.decoder
        h = self.run(d.middle, d.conv_in(d.from_code(codes)))
        for i in reversed(range(len(d.levels))):
            if self.config.mirrored_decoder:
                h = self.run(d.levels[i], self.mix(i, h, skips))
            else:
                h = self.mix(i, self.run(d.levels[i], h), skips)
            if i > 0:
                h = d.ups[i - 1].conv(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return d.conv_out(F.silu(nn.GroupNorm.forward(d.norm_out, h)))

    def mix(self, i: int, h: Tensor, skips: list[tuple[Tensor, Tensor]] | None) -> Tensor:
        if skips is None or i == len(self.config.channels) - 1:
            return h
        (known, mask), weight = skips[i + 1], (self.config.connection_weights or (1.0, 1.0))[i]
        mixed = known if math.isinf(weight) else (h + weight * known) / (1 + weight)
        return torch.where(mask, h, mixed)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_a_mask_it_is_a_plain_vqgan_to_the_last_bit(mirrored: bool, dtype: torch.dtype) -> None:
    model, image = make(mirrored_decoder=mirrored).to(dtype), picture(2, 32, 48)
    twin = Twin(model)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            encoding = model.encode(image)
            assert torch.equal(encoding.latents, twin.encode(image.to(dtype)).float())
            codes = F.embedding(encoding.tokens, model.quantiser.codebook).permute(0, 3, 1, 2).contiguous()
            decoded = model.decode(encoding.tokens)
            assert torch.equal(decoded, twin.decode(codes).float())
            assert encoding.latents.dtype == decoded.dtype == torch.float32


# ---- training


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("kind", MASKS)
def test_merged_encoding_knows_what_single_encoding_knows(kind: str, grad: bool, patch: int) -> None:
    model, image, mask = make(patch=patch), picture(2, 32, 32), hole(kind, 2, 32, 32)
    with torch.set_grad_enabled(grad):
        single, merged = model.encode(image, mask), model.merge_encode(image, mask)
    assert_alike(known(merged), known(single))
    if kind == "all":  # the other branch is the plain one
        torch.testing.assert_close(merged.latents, model.encode(image).latents, rtol=1e-4, atol=1e-4)


def test_the_doubled_batch_is_the_two_branches_apart(small: DFVQGAN) -> None:
    """Eq. 9, step by step, each branch by itself."""
    image, mask = picture(2, 32, 32), hole("random", 2, 32, 32)
    with torch.inference_mode():
        merged, h, m = small.merge_encode(image, mask), image, mask
        for i in range(3):
            h_y, _ = small.encoder.stage(i, h, None)
            h_x, activation = small.encoder.stage(i, h, m)
            if i < 2:
                torch.testing.assert_close(merged.skips[i + 1][0], activation)  # type: ignore[index]
                m = F.max_pool2d(m.float(), 2) > 0
            h = torch.where(m, h_y, h_x)
    torch.testing.assert_close(merged.latents, h, rtol=1e-4, atol=1e-5)
    assert torch.equal(merged.token_mask, m)  # type: ignore[arg-type]


@pytest.mark.parametrize("autocast", [False, True])
def test_a_training_pass_gives_every_weight_a_gradient(autocast: bool) -> None:
    model, image, mask = make().train(), picture(3, 32, 32), hole("random", 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = model(image, mask, connect=torch.tensor([True, False, True]))
    assert out.image.dtype == out.encoding.latents.dtype == torch.float32
    loss = (out.image - image).square().mean() + out.quantised.codebook_loss + out.quantised.commitment_loss
    loss.backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name
        # a key's bias adds the same to all scores, and softmax does not see it
        assert weight.grad.any() or name.endswith("k.bias"), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_a_training_pass_on_cuda_is_that_on_the_cpu() -> None:
    image, mask, connect = picture(2, 32, 32), hole("random", 2, 32, 32), torch.tensor([True, False])
    model = make()
    expected = model.merge_encode(image, mask).latents
    model = model.cuda()
    torch.testing.assert_close(
        model.merge_encode(image.cuda(), mask.cuda()).latents.cpu(), expected, rtol=1e-2, atol=1e-2
    )
    with torch.autocast("cuda", torch.bfloat16):
        model(image.cuda(), mask.cuda(), connect.cuda()).image.sum().backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())  # type: ignore[union-attr]


def test_a_training_pass_decodes_some_samples_without_connections() -> None:
    model, image, mask = make(), picture(2, 32, 32), hole("random", 2, 32, 32)
    with torch.no_grad():
        out = model(image, mask, connect=torch.tensor([True, False]))
        connected = model.decode_codes(out.quantised.codes, out.encoding.skips)
        plain = model.decode_codes(out.quantised.codes)
    torch.testing.assert_close(out.image[0], connected[0])
    torch.testing.assert_close(out.image[1], plain[1])
    assert torch.equal(out.image[0].masked_fill(mask[0], 0), image[0].masked_fill(mask[0], 0))
    assert not torch.allclose(out.image[1], image[1])


# ---- decoding


@given(
    kind=st.sampled_from(MASKS),
    weights=st.sampled_from([None, (1.0, 0.5), (math.inf, 0.0), (0.0, math.inf)]),
    mirrored=st.booleans(),
)
@quick
def test_connections_are_equation_12(kind: str, weights: tuple[float, ...] | None, mirrored: bool) -> None:
    model = make(connection_weights=weights, mirrored_decoder=mirrored)
    image, mask = picture(2, 32, 32), hole(kind, 2, 32, 32)
    with torch.inference_mode():
        encoding = model.encode(image.masked_fill(mask, math.nan), mask)
        out = model.decode(encoding.tokens, encoding.skips)
        twin = Twin(model).decode(model.quantiser.lookup(encoding.tokens), encoding.skips)
    assert torch.equal(out.masked_fill(mask, 0), image.masked_fill(mask, 0))  # known pixels, to the bit
    torch.testing.assert_close(out, torch.where(mask, twin, image), rtol=1e-4, atol=1e-5)


def test_cells_of_several_pixels_paste_known_pixels_all_the_same() -> None:
    """The finest level works on cells of 2 x 2 pixels, yet a single known pixel of a cell comes back to the bit."""
    model, image, mask = make(patch=2), picture(1, 32, 32), hole("checkerboard", 1, 32, 32)
    with torch.inference_mode():
        encoding = model.encode(image.masked_fill(mask, math.nan), mask)
        out = model.decode(encoding.tokens, encoding.skips)
    assert encoding.tokens.shape == (1, 4, 4) and out.shape == image.shape
    assert torch.equal(out.masked_fill(mask, 0), image.masked_fill(mask, 0)) and out.isfinite().all()


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_a_new_refinement_changes_nothing(patch: int) -> None:
    torch.manual_seed(0)
    old, model = make(patch=patch), make(patch=patch, refinement=4)
    missing, unexpected = model.load_state_dict(old.state_dict(), strict=False)
    assert not unexpected and missing and all(name.startswith("decoder.refinement.") for name in missing)
    image, mask = picture(2, 32, 32), hole("random", 2, 32, 32)
    with torch.inference_mode():
        encoding = old.encode(image, mask)
        for skips in (encoding.skips, None):
            assert torch.equal(model.decode(encoding.tokens, skips), old.decode(encoding.tokens, skips))
    assert model.last_layer is model.decoder.refinement.conv_out.weight  # type: ignore[union-attr]


def test_a_refinement_sees_the_known_pixels_beside_the_hole_and_keeps_them() -> None:
    model, image, mask = make(patch=2, refinement=4), picture(1, 32, 32), hole("half", 1, 32, 32)
    torch.nn.init.normal_(model.last_layer)
    with torch.inference_mode():
        encoding = model.encode(image.masked_fill(mask, math.nan), mask)
        assert encoding.skips is not None
        out = model.decode(encoding.tokens, encoding.skips)
        others = [(-encoding.skips[0][0], mask), *encoding.skips[1:]]
        changed = (model.decode(encoding.tokens, others) - out).abs().amax((0, 1, 2))  # by column
    assert torch.equal(out.masked_fill(mask, 0), image.masked_fill(mask, 0)) and out.isfinite().all()
    first = int(mask[0, 0, 0].nonzero()[0, 0]) if not mask[0, 0, 0, 0] else int((~mask[0, 0, 0]).nonzero()[0, 0]) - 1
    assert changed[first] > 1e-3, "the hole's column beside the known part"
    inside = changed[: first - 2] if mask[0, 0, 0, 0] else changed[first + 3 :]
    assert not inside.any(), "three convolutions of 3 x 3 reach three pixels"


def test_connections_reach_the_hole(small: DFVQGAN) -> None:
    """What is known at the hole's border changes what is painted into it."""
    image, mask = picture(1, 32, 32), hole("half", 1, 32, 32)
    with torch.inference_mode():
        encoding = small.encode(image, mask)
        connected, plain = small.decode(encoding.tokens, encoding.skips), small.decode(encoding.tokens)
    assert (connected - plain).masked_select(mask).abs().max() > 1e-3


# ---- switches


def test_without_relative_estimation_the_zeroed_picture_is_encoded_plainly() -> None:
    model, image, mask = make(relative_estimation=False), picture(2, 32, 32), hole("random", 2, 32, 32)
    with torch.inference_mode():
        encoding = model.encode(image.masked_fill(mask, math.nan), mask)
        plain = model.encode(image.masked_fill(mask, 0))
        assert torch.equal(encoding.latents, plain.latents) and torch.equal(encoding.tokens, plain.tokens)
        assert torch.equal(model.merge_encode(image, mask).latents, model.encode(image).latents)
        assert [h.shape for h, _ in encoding.skips] == [(2, 3, 32, 32), (2, 8, 32, 32), (2, 8, 16, 16)]  # type: ignore[union-attr]
        assert all((h.masked_select(m) == 0).all() for h, m in encoding.skips)  # type: ignore[union-attr]


def test_without_connections_the_skips_change_nothing() -> None:
    model, image, mask = make(symmetrical_connections=False), picture(2, 32, 32), hole("random", 2, 32, 32)
    with torch.inference_mode():
        encoding = model.encode(image, mask)
        assert torch.equal(model.decode(encoding.tokens, encoding.skips), model.decode(encoding.tokens))


@pytest.mark.parametrize("relative", [False, True])
def test_the_mask_at_token_size_is_any_defective_pixel(relative: bool) -> None:
    model, mask = make(relative_estimation=relative), torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[0, 0, 7, 8] = True
    with torch.inference_mode():
        encoding = model.encode(picture(1, 32, 32), mask)
    assert encoding.token_mask.nonzero().tolist() == [[0, 0, 1, 2]]  # type: ignore[union-attr]
    assert [m.sum().item() for _, m in encoding.skips] == [1, 1, 1]  # type: ignore[union-attr]


# ---- settings


def parameters(name: str) -> float:
    """Millions of parameters of a preset."""
    with torch.device("meta"):
        model = DFVQGAN(DFVQGANConfig.preset(name))
    return sum(weight.numel() for weight in model.parameters()) / 1e6


def test_the_official_settings_have_the_official_size() -> None:
    config = DFVQGANConfig.preset("paper-f8-8192")
    assert parameters("paper-f8-8192") == pytest.approx(48.5, abs=0.1)
    assert (config.factor, config.grid, config.codebook_size) == (8, 32, 8192)
    assert config.decoder_blocks == 2 and config.commitment == 0.25


def test_the_light_settings_give_the_same_tokens_for_less() -> None:
    light, paper = (DFVQGANConfig.preset(f"{name}-f8-8192") for name in ("light", "paper"))
    assert dataclasses.replace(light, channels=paper.channels) == paper

    def arithmetic(config: DFVQGANConfig) -> int:
        with torch.device("meta"):
            model = DFVQGAN(config)
            codes = torch.empty(1, config.codebook_dim, config.grid, config.grid)
            h = torch.empty(1, 3, config.resolution, config.resolution)
        with FlopCounterMode(display=False) as counter:
            for i in range(len(config.channels)):
                h = model.encoder.stage(i, h, None)[0]
            model.decoder(codes, lambda _, x: x, lambda image: image)
        return counter.get_total_flops()

    assert arithmetic(light) / arithmetic(paper) == pytest.approx(0.59, abs=0.01)


@pytest.mark.parametrize("size", [1024, 12288])
def test_the_papers_other_settings(size: int) -> None:
    config = DFVQGANConfig.preset(f"paper-f16-{size}")
    assert (config.factor, config.grid, config.codebook_size, config.resolution) == (16, 16, size, 256)
    assert parameters(f"paper-f16-{size}") == pytest.approx(parameters("paper-f16-1024") + (size - 1024) * 256e-6)


def test_small_presets_are_small() -> None:
    config = DFVQGANConfig.preset("mini")
    assert config.resolution >= 128 and config.grid == 16
    assert parameters("mini") < 10 and parameters("tiny") < 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": (8, 10)}, "channels 10 cannot be divided into 4 groups"),
        ({"channels": ()}, "channels is empty"),
        ({"resolution": 30}, "resolution 30 is not a multiple of the factor 4"),
        ({"attention_levels": (3,)}, "attention_levels 3 does not exist: levels are 0 to 2"),
        ({"connection_weights": (1.0,)}, "connection_weights has 1 values; 3 levels need 2"),
        ({"connection_weights": (1.0, -2.0)}, "connection_weights -2.0 is not a weight"),
        ({"decoder_blocks": 0}, "decoder_blocks 0 is too small"),
        ({"patch": 3}, "patch is 3; it must be a power of two"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SMALL, **changes)  # type: ignore[arg-type]


def test_weights_for_pixels_from_0_to_1_see_a_hole_as_padding() -> None:
    """The network gets (x + 1) / 2, and 0 in the hole, which is black; images are in [-1, 1] outside."""
    plain, unit = make(), make().take_unit_range()
    assert unit.config.input_range == (0, 1) and plain.config.input_range == (-1, 1)
    image, mask = picture(2, 32, 32), hole("half", 2, 32, 32)
    assert torch.equal(unit.encode(image).latents, plain.encode((image + 1) / 2).latents)
    expected = plain.encode((image + 1) / 2, mask)
    for fill in FILLS:
        found = unit.encode(image.masked_fill(mask, fill), mask)
        assert torch.equal(found.latents, expected.latents) and torch.equal(
            found.skips[0][0], image.masked_fill(mask, 0)
        )
    assert torch.allclose(unit.decode(expected.tokens), 2 * plain.decode(expected.tokens) - 1, atol=1e-5)
    zeroed = dataclasses.replace(unit.config, relative_estimation=False)
    plain.config, unit.config = dataclasses.replace(zeroed, input_range=(-1.0, 1.0)), zeroed
    assert torch.equal(unit.encode(image, mask).latents, plain.encode((image + 1) / 2, mask).latents)
    with pytest.raises(InputError, match=r"input_range is \(0.0, 2.0\); it must be"):
        dataclasses.replace(SMALL, input_range=(0.0, 2.0))


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="'paper'; there are: paper-f8-8192, .*tiny"):
        DFVQGANConfig.preset("paper")


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (torch.zeros(1, 3, 30, 32), None, "image is 30 x 32; both sides must be multiples of 4"),
        (torch.zeros(3, 32, 32), None, r"image has shape \[3, 32, 32\]"),
        (torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32), "mask is torch.float32"),
        (torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 16, 32).bool(), r"\[1, 1, 16, 32\]; this image needs"),
    ],
)
def test_inputs_that_do_not_fit_are_named(small: DFVQGAN, image: Tensor, mask: Tensor | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        small.encode(image, mask)
    if mask is not None:
        with pytest.raises(InputError, match=message):
            small.merge_encode(image, mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_weights_in_bf16_take_and_give_float32(dtype: torch.dtype) -> None:
    model, image, mask = make().to(dtype), picture(1, 32, 32), hole("half", 1, 32, 32)
    with torch.inference_mode():
        encoding = model.encode(image, mask)
        decoded = model.decode(encoding.tokens, encoding.skips)
    assert encoding.latents.dtype == decoded.dtype == encoding.skips[0][0].dtype == torch.float32  # type: ignore[index]
    assert model.dtype == dtype and model.last_layer.dtype == dtype
    assert torch.equal(decoded.masked_fill(mask, 0), image.masked_fill(mask, 0))
