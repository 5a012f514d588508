"""Other people's code for the same work, built from their own packages where these are installed, never copied.

Weights are random, nothing is downloaded. The official patterns need no package: they are in `official`.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from nuwa_lip.bench.measure import CPU
from nuwa_lip.bench.sizes import Bench, fill
from nuwa_lip.errors import first_line
from nuwa_lip.hub import Uninitialised
from nuwa_lip.models import DFVQGANConfig, MPS2SConfig

T = TypeVar("T")
Pipeline = Callable[[torch.dtype, bool, torch.device], Callable[[int], object]]
"""f(precision, whether tiny, device) → g(steps)."""


def optional(bench: Bench, package: str, make: Callable[[], T], what: str = "") -> T | None:
    """Give what `make` returns, or None and a line that says why not.

    Args:
        bench: gets the line.
        package: what `make` imports.
        make: builds the peer, or calls it for the first time.
        what: the part of the package, for the line.
    """
    if importlib.util.find_spec(package) is None:
        bench.skipped.append(f"{package} is not installed; it is left out (pip install {package})")
        return None
    try:
        return make()
    except Exception as error:  # of other people's code, whatever it is
        named = f"{package}, {what}," if what else package
        bench.skipped.append(f"{named} failed and is left out: {type(error).__name__}: {first_line(error)[:200]}")
        return None


def _build(dtype: torch.dtype, make: Callable[..., Any], *args: Any, device: torch.device = CPU, **sizes: Any) -> Any:
    """Make a model whose weights are noise; initial values of a billion weights would take minutes."""
    with device, Uninitialised():
        model: nn.Module = make(*args, **sizes)
    fill(model)
    return model.to(dtype)


def _levels(channels: tuple[int, ...]) -> dict[str, Any]:
    """Name the sizes of an autoencoder of diffusers with plain blocks of these channels."""
    down, up = ("DownEncoderBlock2D",) * len(channels), ("UpDecoderBlock2D",) * len(channels)
    return {"down_block_types": down, "up_block_types": up, "block_out_channels": channels}


def vqmodel(config: DFVQGANConfig, dtype: torch.dtype) -> Any:
    """Make diffusers' VQModel with the encoder's shape of a DF-VQGAN; its `encode` stops before the codes."""
    from diffusers import VQModel
    from diffusers.utils import logging

    logging.set_verbosity_error()  # it advises against changing the precision of a model in memory
    model: Any = VQModel(
        **_levels(config.channels),
        layers_per_block=config.encoder_blocks,
        latent_channels=config.latent_channels,
        num_vq_embeddings=config.codebook_size,
        vq_embed_dim=config.codebook_dim,
        norm_num_groups=config.groups,
        mid_block_add_attention=config.mid_attention,
    )
    return model.eval().requires_grad_(False).to(dtype)


def vqmodel_tokens(model: Any, pixels: Tensor) -> Callable[[], object]:
    """Prepare encoding a photo to codes, which are chosen in float32, as ours are: distances have no bf16 on a CPU."""
    quantise = copy.deepcopy(model.quantize).float()
    return lambda: quantise(model.encode(pixels).latents.float())


def t5(config: MPS2SConfig, dtype: torch.dtype, device: torch.device = CPU) -> Any:
    """Make a T5 1.1 with the widths and depths of an MP-S2S.

    Args:
        config: of the MP-S2S.
        dtype: of the weights.
        device: where the model is made.
    """
    from transformers import T5Config, T5ForConditionalGeneration
    from transformers.utils import logging

    logging.set_verbosity_error()
    encoder, decoder = config.token_layers, config.decoder_layers
    kind: Any = T5Config  # some of what it takes is not in its signature
    sizes = kind(
        vocab_size=config.codebook_size,
        d_model=config.width,
        d_kv=config.width // config.heads,
        d_ff=round(config.width * config.mlp_ratio),
        num_layers=encoder,
        num_decoder_layers=decoder,
        num_heads=config.heads,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=None,
    )
    model = _build(dtype, T5ForConditionalGeneration, sizes, device=device)
    model.config.num_layers = max(encoder, decoder)  # transformers 5 sizes the decoder's cache by the encoder's depth
    patches = (config.image_size // config.patch_size) ** 2
    model.memory_shape = (1, config.text_length + patches + config.grid[0] * config.grid[1], config.width)
    return model


def generate(model: Any, tokens: int, cache: str, top_k: int) -> Callable[[], object]:
    """Prepare a call of `generate` with encoder states that are ready, and try it once.

    Args:
        model: as `t5` makes it.
        tokens: how many are generated.
        cache: "dynamic" or "static".
        top_k: of the sampling.
    """
    from transformers.modeling_outputs import BaseModelOutput

    states = torch.randn(model.memory_shape).to(model.device, model.dtype)
    options: dict[str, Any] = {} if cache == "dynamic" else {"cache_implementation": "static", "disable_compile": True}

    def run() -> object:
        given = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": True, "top_k": top_k}
        return model.generate(encoder_outputs=BaseModelOutput(states), use_cache=True, **given, **options)

    run()
    return run


def photo_and_mask(side: int) -> tuple[Image.Image, Image.Image]:
    """Make a photo of noise, and a mask of its right half."""
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    mask = np.zeros((side, side), np.uint8)
    mask[:, side // 2 :] = 255
    return Image.fromarray(noise), Image.fromarray(mask)


def _clip_text(projection: bool, small: bool) -> Any:
    """Make the text encoder of CLIP ViT-L, or a tiny one, with its projection or without."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    width, layers, heads = (32, 1, 2) if small else (768, 12, 12)
    sizes: dict[str, Any] = {"hidden_size": width, "intermediate_size": 4 * width, "projection_dim": width}
    config = CLIPTextConfig(**sizes, num_hidden_layers=layers, num_attention_heads=heads)
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def amused_pipeline(dtype: torch.dtype, small: bool, tokenizer: Any = None) -> Any:
    """Make the inpainting pipeline of aMUSEd-256.

    Args:
        dtype: of the weights.
        small: make it tiny.
        tokenizer: of captions; None where they are not read.
    """
    from diffusers import AmusedInpaintPipeline, AmusedScheduler, UVit2DModel, VQModel

    widths = ("hidden_size", "cond_embed_dim", "encoder_hidden_size", "in_channels", "block_out_channels")
    tiny: dict[str, Any] = dict.fromkeys(widths, 32)
    tiny |= {"micro_cond_encode_dim": 8, "micro_cond_embed_dim": 40, "intermediate_size": 64}
    tiny |= {"num_res_blocks": 1, "num_hidden_layers": 1, "block_num_heads": 2, "num_attention_heads": 2}
    transformer = _build(dtype, UVit2DModel, sample_size=16, **(tiny if small else {}))  # its own sizes are aMUSEd's
    channels, blocks, groups = ((8, 8), 1, 8) if small else ((128, 256, 256, 512, 768), 2, 32)
    sizes: dict[str, Any] = {"layers_per_block": blocks, "norm_num_groups": groups, "latent_channels": 64}
    sizes |= {"num_vq_embeddings": 8192, "mid_block_add_attention": False, "lookup_from_codebook": True}
    vq = _build(dtype, VQModel, **_levels(channels), **sizes)
    text = _build(dtype, _clip_text, True, small)
    return AmusedInpaintPipeline(vq, tokenizer, text, transformer, AmusedScheduler(mask_token_id=8255))


def amused(dtype: torch.dtype, small: bool, device: torch.device) -> Callable[[int], object]:
    """Make the inpainting pipeline of aMUSEd-256, as a function of the number of steps.

    Args:
        dtype, small, device: as in `Pipeline`.
    """
    pipe = amused_pipeline(dtype, small)
    text = pipe.text_encoder

    def embed(ids: Tensor) -> dict[str, Tensor]:
        out = text(ids, output_hidden_states=True)
        halves = {"prompt_embeds": out.text_embeds, "encoder_hidden_states": out.hidden_states[-2]}
        return {name: x[:1] for name, x in halves.items()} | {f"negative_{name}": x[1:] for name, x in halves.items()}

    return _inpainting(pipe.to(device), embed, 32 if small else 256, guidance_scale=10.0)


def stable_diffusion(dtype: torch.dtype, small: bool, device: torch.device) -> Callable[[int], object]:
    """Make an inpainting pipeline of Stable Diffusion 1.5's size at 256 x 256, as a function of the number of steps.

    Args:
        dtype, small, device: as in `Pipeline`.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel

    side, wide, groups, layers = (64, 32, 8, 1) if small else (256, 768, 32, 2)
    common: dict[str, Any] = {"layers_per_block": layers, "norm_num_groups": groups}
    channels = (16, 16, 16, 16) if small else (320, 640, 1280, 1280)
    sizes: dict[str, Any] = {"sample_size": 64, "in_channels": 9, "cross_attention_dim": wide}
    unet = _build(dtype, UNet2DConditionModel, block_out_channels=channels, **sizes, **common)
    levels = _levels((8, 8, 8, 8) if small else (128, 256, 512, 512))
    text = _build(dtype, _clip_text, False, small)
    vae = _build(dtype, AutoencoderKL, sample_size=512, **levels, **common)
    scheduler = DDIMScheduler(num_train_timesteps=1000, steps_offset=1)
    nothing: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe: Any = StableDiffusionInpaintPipeline(vae, text, None, unet, scheduler, **nothing)

    def embed(ids: Tensor) -> dict[str, Tensor]:
        states = text(ids)[0]
        return {"prompt_embeds": states[:1], "negative_prompt_embeds": states[1:]}

    return _inpainting(pipe.to(device), embed, side, guidance_scale=7.5, height=side, width=side)


def _inpainting(
    pipe: Any, embed: Callable[[Tensor], dict[str, Tensor]], side: int, **options: Any
) -> Callable[[int], object]:
    """A call of a pipeline of diffusers, as a function of the number of steps; `embed` encodes word pieces [2, 77]."""
    pipe.set_progress_bar_config(disable=True)
    ids, (image, mask) = torch.randint(0, 49407, (2, 77)).to(pipe.device), photo_and_mask(side)

    @torch.inference_mode()
    def run(steps: int) -> object:
        given = {"image": image, "mask_image": mask, "num_inference_steps": steps, "strength": 1.0, **options}
        return pipe(**given, **embed(ids), output_type="np")

    return run
