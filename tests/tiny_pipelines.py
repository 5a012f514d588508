"""Pipelines of diffusers with tiny random networks, saved as their makers do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

BYTES = [chr(i) for i in range(33, 127)]


def text_encoder(projection: bool) -> tuple[Any, Any]:
    """A tiny CLIP text model and its tokenizer of single letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    words = [*BYTES, *(letter + "</w>" for letter in BYTES), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=16)
    config = CLIPTextConfig(
        hidden_size=8,
        intermediate_size=8,
        num_attention_heads=1,
        num_hidden_layers=2,
        vocab_size=len(words),
        projection_dim=8,
        max_position_embeddings=16,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval(), tokenizer


def image_tokenizer() -> Any:
    """A tiny VQ: 2 x 2 pixels a token, 30 codes."""
    from diffusers import VQModel

    return VQModel(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=8,
        num_vq_embeddings=30,
        norm_num_groups=4,
        sample_size=16,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
    )


def save_amused(folder: Path) -> Path:
    """A tiny aMUSEd: squares of 16 pixels, 8 x 8 tokens, 30 codes."""
    from diffusers import AmusedInpaintPipeline, AmusedScheduler, UVit2DModel

    torch.manual_seed(0)
    model, tokenizer = text_encoder(projection=True)
    vqvae = image_tokenizer()
    transformer = UVit2DModel(
        hidden_size=8,
        cond_embed_dim=8,
        micro_cond_encode_dim=2,
        micro_cond_embed_dim=10,
        encoder_hidden_size=8,
        vocab_size=32,
        codebook_size=30,
        in_channels=8,
        block_out_channels=8,
        num_res_blocks=1,
        block_num_heads=1,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        sample_size=8,
    )
    scheduler = AmusedScheduler(mask_token_id=31)
    AmusedInpaintPipeline(vqvae, tokenizer, model, transformer, scheduler).save_pretrained(folder)
    return folder


def save_stable_diffusion(folder: Path) -> Path:
    """A tiny Stable Diffusion for inpainting: squares of 16 pixels."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    model, tokenizer = text_encoder(projection=False)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=9,
        out_channels=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=1,
        norm_num_groups=4,
        cross_attention_dim=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )
    scheduler = DDIMScheduler(steps_offset=1, clip_sample=False)
    pipe = StableDiffusionInpaintPipeline(
        vae, model, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    pipe.save_pretrained(folder)
    return folder


def save_stable_diffusion_xl(folder: Path) -> Path:
    """A tiny SDXL for inpainting, with both text encoders: squares of 16 pixels."""
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionXLInpaintPipeline,
        UNet2DConditionModel,
    )

    torch.manual_seed(0)
    (first, words), (second, words_2) = text_encoder(projection=False), text_encoder(projection=True)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=9,
        out_channels=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        addition_embed_type="text_time",
        addition_time_embed_dim=2,
        projection_class_embeddings_input_dim=8 + 6 * 2,
        use_linear_projection=True,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )
    scheduler = EulerDiscreteScheduler()
    StableDiffusionXLInpaintPipeline(vae, first, second, words, words_2, unet, scheduler).save_pretrained(folder)
    return folder


def save_flux2_klein(folder: Path) -> Path:
    """A tiny FLUX.2-klein, saved as its makers do: as a pipeline that paints whole pictures."""
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    vocab = {word: i for i, word in enumerate(["<|endoftext|>", *BYTES, "Ġ", "Ċ"])}
    tokenizer = Qwen2TokenizerFast(vocab=vocab, merges=[])
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    text = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(vocab),
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=28,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=8,
        )
    )
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=1,
        joint_attention_dim=24,
        timestep_guidance_channels=8,
        axes_dims_rope=(2, 2, 2, 2),
        guidance_embeds=False,
    )
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )
    pipe = Flux2KleinPipeline(
        FlowMatchEulerDiscreteScheduler(), vae, text.eval(), tokenizer, transformer, is_distilled=True
    )
    pipe.save_pretrained(folder)
    return folder


def save_meissonic(folder: Path) -> Path:
    """A tiny Meissonic, whose grid is halved within."""
    from nuwa_lip.painters.meissonic import MeissonicTransformer

    torch.manual_seed(0)
    model, tokenizer = text_encoder(projection=True)
    config = {"_class_name": "Transformer2DModel", "num_layers": 1, "num_single_layers": 2, "attention_head_dim": 8}
    config |= {"num_attention_heads": 1, "joint_attention_dim": 8, "pooled_projection_dim": 8, "vocab_size": 32}
    config |= {"axes_dims_rope": [2, 2, 4], "codebook_size": 30, "downsample": True, "upsample": True}
    image_tokenizer().save_pretrained(folder / "vqvae")
    model.save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    for name in ("transformer", "scheduler"):
        (folder / name).mkdir()
    weights = {name: weight.contiguous() for name, weight in MeissonicTransformer(config).state_dict().items()}
    save_file(weights, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    for name, content in (
        ("transformer/config.json", config),
        ("scheduler/scheduler_config.json", {"mask_token_id": 31}),
        ("model_index.json", {"_class_name": "Pipeline"}),
    ):
        (folder / name).write_text(json.dumps(content))
    return folder
