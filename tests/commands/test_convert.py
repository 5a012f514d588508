"""`nuwa-lip convert`: a model folder that loads, or one line and nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import VQModel

from nuwa_lip.cli import main
from nuwa_lip.hub import load_model


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of diffusers' VQModel."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("source") / "vq"
    model = VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=4,
        num_vq_embeddings=16,
        norm_num_groups=4,
    )
    model.save_pretrained(folder)
    return folder


def test_it_makes_a_model_folder(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "model"
    main(["convert", str(source), "-o", str(out), "--resolution", "64"])
    assert "32 x 32 tokens of 16 for 64 x 64 pixels" in capsys.readouterr().out
    parts = load_model(out, need_mps2s=False)
    peer, image = VQModel.from_pretrained(source), torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        found, expected = parts.dfvqgan.encode(image).latents, peer.encode(image).latents
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)  # attention by other kernels
    assert "licence" in (parts.card or "")

    main(["convert", str(source), "-o", str(out), "--resolution", "32", "--overwrite"])
    assert load_model(out, need_mps2s=False).dfvqgan.config.resolution == 32


def test_weights_that_read_pictures_from_0_to_1(source: Path, tmp_path: Path) -> None:
    main(["convert", str(source), "-o", str(tmp_path / "out"), "--resolution", "64", "--unit-range"])
    model = load_model(tmp_path / "out", need_mps2s=False).dfvqgan
    peer, image = VQModel.from_pretrained(source), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            model.encode(image * 2 - 1).latents, peer.encode(image).latents, atol=1e-4, rtol=1e-4
        )
        tokens = torch.zeros(1, 8, 8, dtype=torch.int64)
        codes = peer.quantize.get_codebook_entry(tokens.flatten(), (1, 8, 8, 4))
        expected = peer.decoder(peer.post_quant_conv(codes)) * 2 - 1
        torch.testing.assert_close(model.decode(tokens), expected, atol=1e-4, rtol=1e-4)


def test_bad_input_is_one_line_and_leaves_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    out = str(tmp_path / "out")
    for argv, message in (
        ([str(tmp_path / "missing"), "-o", out], "there is no file or folder"),
        ([str(source), "-o", str(tmp_path / "full")], "is not empty; give --overwrite"),
        ([str(source), "-o", str(tmp_path / "file")], "is a file; name a folder"),
        ([str(source), "-o", out, "--resolution", "33"], "resolution 33 is not a multiple of the factor 2"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["convert", *argv])
        err = capsys.readouterr().err
        assert stop.value.code == 2 and message in err and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]
