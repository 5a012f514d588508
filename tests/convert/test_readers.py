"""Other projects' VQGANs give the same latents, tokens and pictures as DF-VQGAN."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import VQModel
from safetensors.torch import save_file
from torch import Tensor, nn

from nuwa_lip.convert import from_diffusers_vqmodel, from_taming, load
from nuwa_lip.errors import InputError
from nuwa_lip.models import DFVQGAN, DFVQGANConfig
from nuwa_lip.models.defect_free import GroupNorm

SMALL = DFVQGANConfig(resolution=32, channels=(8, 8, 16), groups=4, latent_channels=8, codebook_size=32, codebook_dim=4)


def vqmodel(levels: str = "plain plain attend", **changes: Any) -> Any:
    """A VQModel with random weights, each tensor its own; its codes are some of its latents."""
    torch.manual_seed(0)
    down = {"plain": "DownEncoderBlock2D", "attend": "AttnDownEncoderBlock2D"}
    up = {"plain": "UpDecoderBlock2D", "attend": "AttnUpDecoderBlock2D"}
    config = dict(
        down_block_types=tuple(down[kind] for kind in levels.split()),
        up_block_types=tuple(up[kind] for kind in reversed(levels.split())),
        block_out_channels=(8, 8, 16),
        layers_per_block=2,
        latent_channels=8,
        num_vq_embeddings=32,
        vq_embed_dim=4,
        norm_num_groups=4,
    )
    model = VQModel(**(config | changes))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight += 0.3 * torch.randn(weight.shape)
        rows = model.encode(picture()).latents.permute(0, 2, 3, 1).reshape(-1, 4)
        model.quantize.embedding.weight.copy_(rows[torch.randperm(len(rows))[:32]])
    return model.eval().requires_grad_(False)


def picture(side: int = 32) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def assert_same(peer: Any, ours: DFVQGAN) -> None:
    image = picture()
    encoding = ours.encode(image)
    latents = peer.encode(image).latents
    torch.testing.assert_close(encoding.latents, latents, rtol=1e-5, atol=1e-5)
    tokens = peer.quantize(latents)[2][2].view(encoding.tokens.shape)
    assert torch.equal(encoding.tokens, tokens) and len(tokens.unique()) > 5
    B, h, w = tokens.shape
    codes = peer.quantize.get_codebook_entry(tokens.flatten(), (B, h, w, ours.config.codebook_dim))
    expected = peer.decoder(peer.post_quant_conv(codes))
    torch.testing.assert_close(ours.decode(tokens), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("levels", "changes"),
    [
        ("plain plain plain", {}),
        ("plain plain attend", {"layers_per_block": 1}),
        ("attend plain attend", {"mid_block_add_attention": False, "block_out_channels": (4, 8, 12)}),
        ("plain", {"block_out_channels": (8,)}),
    ],
)
@torch.no_grad()
def test_diffusers_vqmodel(levels: str, changes: dict[str, Any]) -> None:
    peer = vqmodel(levels, **changes)
    ours = from_diffusers_vqmodel(peer, resolution=32)
    assert ours.config.decoder_blocks == ours.config.encoder_blocks + 1 and not ours.config.mirrored_decoder
    assert_same(peer, ours)
    # its own weights, not the peer's
    before = ours.encode(picture()).latents
    for weight in peer.parameters():
        weight.zero_()
    assert torch.equal(ours.encode(picture()).latents, before)


def random_model(**changes: Any) -> DFVQGAN:
    torch.manual_seed(0)
    model = DFVQGAN(dataclasses.replace(SMALL, **changes)).eval().requires_grad_(False)
    for weight in model.parameters():
        weight.normal_(std=0.3)
    return model


def taming_names(model: DFVQGAN) -> dict[str, Tensor]:
    """A model's weights under taming-transformers' names, written down independently of the converter."""
    config, state = model.config, {}
    for name, weight in model.state_dict().items():
        name = name.replace(".shortcut.", ".nin_shortcut.").replace(".out.", ".proj_out.")
        name = re.sub(r"^encoder\.downs\.(\d+)\.", r"encoder.down.\1.downsample.", name)
        name = re.sub(r"^decoder\.ups\.(\d+)\.", lambda m: f"decoder.up.{int(m[1]) + 1}.upsample.", name)
        name = re.sub(r"\.middle\.(\d)\.", lambda m: f".mid.{['block_1', 'attn_1', 'block_2'][int(m[1])]}.", name)
        for ours, theirs in (("encoder", "down"), ("decoder", "up")):
            found = re.match(rf"{ours}\.levels\.(\d+)\.(\d+)\.(.*)", name)
            if found:
                level, n, rest = int(found[1]), int(found[2]), found[3]
                attend = level in config.attention_levels
                first = "attn" if attend and ours == "decoder" and config.mirrored_decoder else "block"
                second = "block" if first == "attn" else "attn"
                part = f"{(first, second)[n % 2]}.{n // 2}" if attend else f"block.{n}"
                name = f"{ours}.{theirs}.{level}.{part}.{rest}"
        name = name.replace("encoder.to_code", "quant_conv").replace("decoder.from_code", "post_quant_conv")
        state[name.replace("quantiser.codebook", "quantize.embedding.weight")] = weight
    return state


def official_names(model: DFVQGAN) -> dict[str, Tensor]:
    """The same under the official names: the encoder's operations wrapped once more, norms [1, C, 1]."""
    state = {}
    for name, weight in taming_names(model).items():
        if name.startswith("encoder."):
            module, kind = name.rsplit(".", 1)
            norm = "norm" in module.rsplit(".", 1)[1]
            name, weight = (
                f"{module}.{'norm' if norm else 'conv'}.{kind}",
                weight[None, :, None] if norm else weight,
            )
        state[name] = weight
    return state


@pytest.mark.parametrize(
    "changes",
    [
        {"decoder_blocks": 3},
        {"decoder_blocks": 3, "attention_levels": (0, 2)},
        {"mirrored_decoder": True},
        {"mirrored_decoder": True, "attention_levels": (1,), "channels": (4, 8, 12)},
        {"mirrored_decoder": True, "channels": (8, 8)},
        {"decoder_blocks": 3, "channels": (8, 8)},
        {"encoder_blocks": 1, "decoder_blocks": 2, "mid_attention": False},
    ],
)
def test_taming_names_give_the_model_back(changes: dict[str, Any]) -> None:
    model = random_model(**changes)
    if not model.config.mid_attention:
        # without it the middle's second block is number 1
        state = {k.replace(".mid.attn_1.", ".mid.block_2."): v for k, v in taming_names(model).items()}
    else:
        state = taming_names(model)
    extra = {"loss.discriminator.main.0.weight": torch.zeros(3), "model_ema.decay": torch.zeros(())}
    for given in (state | extra, {f"model.{name}": weight for name, weight in state.items()} | extra):
        found = from_taming(given, resolution=32, groups=4)
        assert found.config == model.config
        assert all(torch.equal(w, found.state_dict()[name]) for name, w in model.state_dict().items())


def test_official_names_give_the_official_norms() -> None:
    """The weights are the official ones, but for norms: theirs divide by the unbiased deviation."""
    model = random_model(mirrored_decoder=True, decoder_blocks=2)
    found = from_taming(official_names(model), resolution=32, groups=4)
    assert found.config == model.config
    pairs = dict(found.named_modules())
    for name, module in model.named_modules():
        if isinstance(module, GroupNorm) and name.startswith("encoder."):
            level = int(name.split(".")[2]) if ".levels." in name else 2
            x = torch.randn(1, module.num_channels, 32 // 2**level, 32 // 2**level)
            groups = x.view(1, 4, -1)
            normed = (groups - groups.mean(-1, keepdim=True)) / groups.std(-1, keepdim=True)
            expected = normed.view(x.shape) * module.weight[:, None, None] + module.bias[:, None, None]
            torch.testing.assert_close(pairs[name](x), expected, rtol=1e-5, atol=1e-5)
        elif isinstance(module, nn.Conv2d | GroupNorm):
            assert torch.equal(pairs[name].weight, module.weight), name


@torch.no_grad()
def test_the_official_encoder_is_vqmodels_encoder() -> None:
    """Two blocks a level, attention in the middle only: the same shape, so the same function."""
    peer = vqmodel("plain plain plain", block_out_channels=(8, 8, 16))
    state = {name: w for name, w in taming_names(from_diffusers_vqmodel(peer, resolution=32)).items()}
    decoder = taming_names(random_model(mirrored_decoder=True))
    official = {name: state[name] if name.startswith(("encoder", "quant")) else w for name, w in decoder.items()}
    ours = from_taming(official, resolution=32, groups=4)
    assert ours.config == dataclasses.replace(SMALL, mirrored_decoder=True)
    torch.testing.assert_close(ours.encode(picture()).latents, peer.encode(picture()).latents, rtol=1e-5, atol=1e-5)


# ---- files


@torch.no_grad()
def test_folders_and_files(tmp_path: Path) -> None:
    peer = vqmodel()
    peer.save_pretrained(tmp_path / "pipeline" / "vqvae")
    for folder in (tmp_path / "pipeline" / "vqvae", tmp_path / "pipeline"):
        assert_same(peer, load(folder, resolution=32))
    model = random_model(decoder_blocks=3)
    save_file(taming_names(model), tmp_path / "vqgan.safetensors")
    assert load(tmp_path / "vqgan.safetensors", resolution=32, groups=4).config == model.config


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: weight for key, weight in state.items() if key != name}


def test_weights_that_do_not_fit_are_named() -> None:
    state = taming_names(random_model(decoder_blocks=3))
    conv = "encoder.down.1.block.1.conv2.weight"
    for given, message in (
        ({}, "lack quantize.embedding.weight"),
        (without(state, conv), f"lack {conv}"),
        (without(state, "decoder.up.0.block.0.conv1.weight"), "lack decoder.up.0.block.0.conv1.weight"),
        (state | {"encoder.extra.weight": torch.zeros(1)}, "have encoder.extra.weight, for which"),
        (state | {conv: torch.zeros(8, 8, 1, 1)}, rf"{conv} has shape \[8, 8, 1, 1\]; .* \[8, 8, 3, 3\]"),
    ):
        with pytest.raises(InputError, match=message):
            from_taming(given, resolution=32, groups=4)
    with pytest.raises(InputError, match="cannot be divided into 32 groups"):
        from_taming(state, resolution=32)
    peer = vqmodel()
    peer.register_to_config(norm_type="spatial")
    with pytest.raises(InputError, match="norm_type 'spatial'; a DF-VQGAN has 'group'"):
        from_diffusers_vqmodel(peer)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x04")
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text('{"_class_name": "VQModel"}')
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("missing.safetensors", "there is no file or folder"),
        ("model.ckpt", "is a pickle, .*is not read; save its weights .*safetensors"),
        ("model.safetensors", "is damaged or not safetensors"),
        ("other", "describes AutoencoderKL; a VQModel is needed"),
        ("half", "has no diffusion_pytorch_model.safetensors"),
        ("empty", "is not a folder of diffusers' VQModel"),
    ):
        with pytest.raises(InputError, match=message) as error:
            load(tmp_path / name)
        assert "\n" not in str(error.value)
