"""Exported functions, run by onnxruntime and torch.export, give what the model gives."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from nuwa_lip.convert.export import export
from nuwa_lip.errors import InputError
from nuwa_lip.hub import save_model
from nuwa_lip.models import DFVQGAN, MPS2S, DFVQGANConfig, MPS2SConfig
from nuwa_lip.models.orders import target_tokens
from nuwa_lip.tokenizer import CaptionTokenizer
from tests.conftest import CAPTIONS

STAGE1 = dataclasses.replace(DFVQGANConfig.preset("tiny"), resolution=16, channels=(8, 16), latent_channels=8, groups=4)
STAGE2 = dataclasses.replace(
    MPS2SConfig.preset("tiny"),
    image_size=16,
    rotary=True,
    pointer=True,
    caption_prior=2,
    caption_shift=True,
    neighbours=1,
    decoder_layers=2,
)


def model() -> tuple[DFVQGAN, MPS2S]:
    torch.manual_seed(0)
    dfvqgan, mps2s = DFVQGAN(STAGE1).eval().requires_grad_(False), MPS2S(STAGE2).eval().requires_grad_(False)
    for weight in (*dfvqgan.parameters(), *mps2s.decoder.parameters()):
        weight += 0.05 * torch.randn(weight.shape)  # some begin at zero
    return dfvqgan, mps2s


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    dfvqgan, mps2s = model()
    tokenizer = CaptionTokenizer.train(CAPTIONS, vocab_size=280, max_length=STAGE2.text_length)
    save_model(folder / "model", dfvqgan=dfvqgan, mps2s=mps2s, tokenizer=tokenizer, card="# Tiny\n")
    export(folder / "model", folder / "onnx")
    return folder / "onnx"


def run(folder: Path, name: str, **inputs: Any) -> dict[str, np.ndarray]:
    """Run one function, as a program without PyTorch does."""
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
    wanted = {one.name for one in session.get_inputs()}
    outputs = [one.name for one in session.get_outputs()]
    given = {key: np.asarray(value) for key, value in inputs.items() if key in wanted}
    return dict(zip(outputs, session.run(outputs, given), strict=True))


def photos(batch: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    mask = torch.zeros(batch, 1, 16, 16, dtype=torch.bool)
    for i in range(batch):
        mask[i, :, 3 : 7 + i, 2:9] = True
    return torch.rand(batch, 3, 16, 16) * 2 - 1, mask


@torch.no_grad()
def test_onnx_gives_the_tokens_and_the_picture(exported: Path) -> None:
    dfvqgan, _ = model()
    image, mask = photos(3)
    encoding = dfvqgan.encode(image, mask)
    assert encoding.token_mask is not None
    found = run(exported, "encode", image=image.masked_fill(mask, torch.nan), mask=mask)
    known = ~encoding.token_mask.numpy()
    assert (found["token_mask"] == encoding.token_mask.numpy()).all()
    assert (found["tokens"][known[:, 0]] == encoding.tokens.numpy()[known[:, 0]]).all()
    tokens = torch.randint(64, encoding.tokens.shape)
    skips = {name: value for name, value in found.items() if name.startswith("activation")}
    picture = run(exported, "decode", tokens=tokens, image=image, mask=mask, **skips)["picture"]
    np.testing.assert_allclose(picture, dfvqgan.decode(tokens, encoding.skips), atol=1e-4)
    outside = ~mask.expand_as(image).numpy()
    assert (picture[outside] == image.numpy()[outside]).all()


@torch.no_grad()
def test_onnx_decodes_step_by_step(exported: Path) -> None:
    _, mps2s = model()
    image, mask = photos(2)
    token_mask = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    token_mask[..., 1:3, 2:4] = True
    tokens = torch.randint(64, (2, 8, 8))
    text_ids = torch.zeros(2, STAGE2.text_length, dtype=torch.int64)
    text_ids[0, :4], text_ids[1, :6] = 5, 7
    order = token_mask[0].flatten().nonzero()[:, 0].expand(2, -1)
    memory = mps2s.encode(text_ids, image, mask, tokens, token_mask)
    expected = mps2s.decoder.predict(memory, target_tokens(tokens, order), order)

    read = run(exported, "memory", text_ids=text_ids, image=image, mask=mask, tokens=tokens, token_mask=token_mask)
    about = json.loads((exported / "functions.json").read_text())["step"]["inputs"]
    shape = [2 if n == "batch" else n for n in next(one["shape"] for one in about if one["name"] == "keys")]
    cache = {"new_keys": np.zeros(shape, np.float32), "new_values": np.zeros(shape, np.float32)}
    before, at = np.full((2, 1), -1), order[:, :1]
    for k in range(order.shape[1]):
        target = order[:, k : k + 1]
        cache = run(
            exported,
            "step",
            token=before,
            position=at if k else target,
            target=target,
            slot=np.array([k]),
            keys=cache["new_keys"],
            values=cache["new_values"],
            **read,
        )
        read["known"] = cache["new_known"]
        np.testing.assert_allclose(cache["logits"], expected[:, k], atol=1e-4)
        before, at = tokens.flatten(1).gather(1, target).numpy(), target


@torch.no_grad()
def test_a_plain_tokenizer_is_exported_by_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = DFVQGAN(dataclasses.replace(STAGE1, symmetrical_connections=False)).eval()
    save_model(tmp_path / "model", dfvqgan=plain)
    assert export(tmp_path / "model", tmp_path / "out", "torch") == ["encode.pt2", "decode.pt2"]
    image, mask = photos(1)
    encode, decode = (torch.export.load(tmp_path / "out" / f"{name}.pt2").module() for name in ("encode", "decode"))
    tokens, token_mask = encode(image, mask)
    expected = plain.encode(image, mask)
    assert torch.equal(token_mask, expected.token_mask) and torch.equal(tokens, expected.tokens)
    torch.testing.assert_close(decode(tokens), plain.decode(tokens), atol=1e-4, rtol=1e-4)


def test_without_the_package_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"pip install 'nuwa-lip\[onnx\]'"):
        export("nuwa-lip-mini", tmp_path / "out")
    assert not (tmp_path / "out").exists()
