"""LlamaGen's and MAGVIT-v2's tokenizers give the same latents, tokens and pictures as DF-VQGAN, and never leak."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nuwa_lip.convert import from_taming, load
from nuwa_lip.errors import InputError
from nuwa_lip.models import DFVQGAN
from tests.convert.peers import LlamaGen, Magvit, spread

SIDE = 64


def peers() -> dict[str, LlamaGen | Magvit]:
    torch.manual_seed(1)
    return {
        "llamagen-16": LlamaGen([8, 8, 12, 12, 16]),
        "llamagen-8": LlamaGen([8, 12, 12, 16]),
        "magvit": Magvit([8, 12, 12, 16, 16], [8, 8, 12, 12, 16], [3, 2, 3, 2, 3], [3, 3, 2, 3, 2], 6),
    }


@pytest.mark.parametrize("name", peers())
@torch.no_grad()
def test_a_peer_gives_the_same(name: str) -> None:
    peer = spread(peers()[name])
    assert isinstance(peer, LlamaGen | Magvit)
    ours = from_taming(peer.state_dict(), resolution=SIDE, groups=4)
    assert not ours.config.symmetrical_connections and not ours.config.mirrored_decoder
    assert ours.config.normalise_codes == name.startswith("llamagen")
    image = torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    encoding, latents = ours.encode(image), peer.latents(image)
    torch.testing.assert_close(encoding.latents, latents, rtol=1e-4, atol=1e-4)
    assert torch.equal(encoding.tokens, peer.tokens(latents)) and len(encoding.tokens.unique()) > 2
    tokens = torch.randint(ours.config.codebook_size, encoding.tokens.shape)
    torch.testing.assert_close(ours.decode(tokens), peer.decode(tokens), rtol=1e-4, atol=1e-4)
    assert_no_leak(ours)


def assert_no_leak(model: DFVQGAN) -> None:
    image, mask = torch.rand(1, 3, 64, 64) * 2 - 1, torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    mask[..., 20:40, 5:30] = True
    found = [model.encode(image.masked_fill(mask, value), mask) for value in (0.0, 7.0, float("nan"))]
    assert found[0].token_mask is not None
    known = ~found[0].token_mask[:, 0]
    assert known.any()
    for other in found[1:]:
        assert torch.equal(other.tokens[known], found[0].tokens[known])
        cells = known[:, None].expand_as(other.latents)
        assert torch.equal(other.latents[cells], found[0].latents[cells])


def test_magvit_keeps_its_two_shapes() -> None:
    config = from_taming(peers()["magvit"].state_dict(), resolution=SIDE, groups=4).config
    assert config.channels == (8, 12, 12, 16, 16) and config.decoder_channels == (8, 8, 12, 12, 16)
    assert config.blocks("encoder") == (3, 2, 3, 2, 3) and config.blocks("decoder") == (3, 3, 2, 3, 2)


@torch.no_grad()
def test_a_checkpoint_and_a_folder_are_read(tmp_path: Path) -> None:
    peer = peers()["llamagen-8"]
    expected = from_taming(peer.state_dict(), resolution=SIDE, groups=4).state_dict()
    content = {"model": peer.state_dict(), "optimizer": {"state": {0: {"step": torch.zeros(1)}}}, "steps": 3}
    torch.save(content, tmp_path / "vq.pt")
    found = load(tmp_path / "vq.pt", resolution=SIDE, groups=4).state_dict()
    assert all(torch.equal(weight, found[name]) for name, weight in expected.items())

    magvit = Magvit([32, 64], [32, 64], [2, 1], [1, 2], 4)
    save_file(magvit.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "MAGVITv2"}))
    assert load(tmp_path, resolution=SIDE).config.codebook_size == 16
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="weights of MAGVIT-v2 are missing"):
        load(tmp_path)
