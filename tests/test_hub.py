"""Model folders: written whole or not at all, read back to the bit, refused where something is off."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from nuwa_lip import hub
from nuwa_lip.errors import InputError
from nuwa_lip.hub import BUNDLED, MODEL_FILES, fetch, load_model, push_to_hub, resolve, save_model
from nuwa_lip.models import DFVQGAN, MPS2S, DFVQGANConfig, MPS2SConfig
from nuwa_lip.sampling import Sampling
from nuwa_lip.tokenizer import CaptionTokenizer
from tests.fake_hub import fake_hub
from tests.folders import contents


def parts_of(folder: Path) -> dict[str, Any]:
    return {key: value for key, value in load_model(folder)._asdict().items() if value is not None}


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)


def test_a_model_comes_back_as_it_was(tiny_model: Path, tmp_path: Path) -> None:
    parts = load_model(tiny_model)
    assert parts.mps2s is not None and parts.tokenizer is not None and parts.card == "# Tiny\n"
    assert not parts.dfvqgan.training and not any(p.requires_grad for p in parts.mps2s.parameters())
    save_model(tmp_path / "again", **parts._asdict())
    assert contents(tmp_path / "again") == contents(tiny_model)
    again = load_model(tmp_path / "again")
    assert again.mps2s is not None and again.tokenizer is not None
    assert same_weights(again.dfvqgan, parts.dfvqgan) and same_weights(again.mps2s, parts.mps2s)
    assert again.sampling == Sampling(num_inference_steps=2)
    assert torch.equal(again.tokenizer(["a bear"]), parts.tokenizer(["a bear"]))
    names = {"README.md", "config.json", "dfvqgan.safetensors", "mps2s.safetensors", "tokenizer.json"}
    assert set(contents(tiny_model)) == names


def test_loading_draws_nothing(tiny_model: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load_model(tiny_model)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_can_be_stored_in_half_and_split(tiny_model: Path, tmp_path: Path) -> None:
    parts = parts_of(tiny_model)
    save_model(tmp_path / "half", **parts, dtype=torch.bfloat16)
    assert {value.dtype for value in load_file(tmp_path / "half/mps2s.safetensors").values()} == {torch.bfloat16}
    half = load_model(tmp_path / "half")
    assert half.dfvqgan.dtype == torch.float32
    weight = parts["dfvqgan"].last_layer
    assert torch.equal(half.dfvqgan.last_layer, weight.bfloat16().float())
    assert load_model(tmp_path / "half", dtype=torch.bfloat16).dfvqgan.dtype == torch.bfloat16

    save_model(tmp_path / "split", **parts, max_file_size=200_000)
    files = sorted((tmp_path / "split").glob("*.safetensors"))
    assert len(files) >= 4 and all(file.stat().st_size < 220_000 for file in files)
    split = load_model(tmp_path / "split")
    assert split.mps2s is not None
    assert same_weights(split.dfvqgan, parts["dfvqgan"]) and same_weights(split.mps2s, parts["mps2s"])


def test_saving_again_leaves_no_old_weights_and_other_files_alone(tiny_model: Path, tmp_path: Path) -> None:
    parts, folder = parts_of(tiny_model), tmp_path / "model"
    save_model(folder, **parts, max_file_size=200_000)
    (folder / "notes.txt").write_text("mine")
    (folder / "mps2s-ema").mkdir()
    (folder / "mps2s-ema/step.safetensors").write_text("mine")
    save_model(folder, **parts)
    assert (folder / "mps2s-ema/step.safetensors").read_text() == "mine"
    shutil.rmtree(folder / "mps2s-ema")
    assert contents(folder) == contents(tiny_model) | {"notes.txt": b"mine"}


def test_a_first_stage_alone(tiny_model: Path, tmp_path: Path) -> None:
    dfvqgan = load_model(tiny_model).dfvqgan
    save_model(tmp_path / "stage1", dfvqgan=dfvqgan)
    parts = load_model(tmp_path / "stage1", need_mps2s=False)
    assert parts.mps2s is None and parts.tokenizer is None and same_weights(parts.dfvqgan, dfvqgan)
    with pytest.raises(InputError, match="holds a DF-VQGAN only"):
        load_model(tmp_path / "stage1")


def test_a_ready_made_text_encoder_comes_back(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextModel(
        CLIPTextConfig(vocab_size=300, max_position_embeddings=40, pad_token_id=0, eos_token_id=2, **sizes)
    )
    parts = parts_of(tiny_model)
    mps2s = MPS2S.with_text_encoder(MPS2SConfig.preset("tiny"), text).eval()
    save_model(tmp_path / "clip", **(parts | {"mps2s": mps2s}))
    again = load_model(tmp_path / "clip").mps2s
    assert again is not None and same_weights(again, mps2s)
    ids = torch.tensor([[1, 5, 2]])
    known = (ids, torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32, dtype=torch.bool))
    known += (torch.zeros(1, 8, 8, dtype=torch.int64), torch.zeros(1, 1, 8, 8, dtype=torch.bool))
    assert torch.equal(again.to("cpu").encode(*known).states, mps2s.encode(*known).states)


@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_leaves_no_half_model(
    existing: bool, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, parts = tmp_path / "model", parts_of(tiny_model)
    if existing:
        shutil.copytree(tiny_model, folder)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parts["tokenizer"].__class__, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(folder, **parts)
    if existing:
        assert contents(folder) == contents(tiny_model)
    else:
        assert list(tmp_path.iterdir()) == []


def change(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def drop_weight(folder: Path) -> None:
    state = load_file(folder / "mps2s.safetensors")
    del state["embedding.weight"]
    save_file(state, folder / "mps2s.safetensors")


def add_weight(folder: Path) -> None:
    state = load_file(folder / "dfvqgan.safetensors")
    save_file(state | {"more": torch.zeros(1)}, folder / "dfvqgan.safetensors")


def index(files: object) -> Callable[[Path], None]:
    """An index of split weights that names these files."""
    return lambda folder: (folder / "mps2s.safetensors.index.json").write_text(json.dumps(files)) and None


def cut(name: str, to: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:to]) and None


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "not a whole model folder: config.json is missing"),
    "no dfvqgan": (lambda f: (f / "dfvqgan.safetensors").unlink(), "dfvqgan.safetensors is missing"),
    "no mps2s": (lambda f: (f / "mps2s.safetensors").unlink(), "mps2s.safetensors is missing"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "torn config": (cut("config.json", 100), "config.json is not valid JSON"),
    "torn weights": (cut("dfvqgan.safetensors", 5000), "dfvqgan.safetensors is damaged or not safetensors"),
    "empty weights": (cut("mps2s.safetensors", 0), "mps2s.safetensors is damaged or not safetensors"),
    "torn tokenizer": (cut("tokenizer.json", 100), "tokenizer.json is damaged"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "config.json holds list, not an object"),
    "bytes": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), "config.json is not valid JSON"),
    "newer": (
        lambda f: change(f, lambda c: c.update(format_version=99)),
        "format_version 99.*update nuwa-lip",
    ),
    "no version": (lambda f: change(f, lambda c: c.pop("format_version")), "has no format_version"),
    "odd version": (lambda f: change(f, lambda c: c.update(format_version="1")), "has no format_version"),
    "new part": (lambda f: change(f, lambda c: c.update(sr={})), "unknown field 'sr'.*update nuwa-lip"),
    "new field": (
        lambda f: change(f, lambda c: c["dfvqgan"].update(novel=1)),
        "dfvqgan in .* has the unknown field 'novel'.*update nuwa-lip",
    ),
    "new default": (
        lambda f: change(f, lambda c: c["sampling"].update(novel=1)),
        "sampling in .* has the unknown field 'novel'",
    ),
    "bad default": (
        lambda f: change(f, lambda c: c["sampling"].update(temperature=-1)),
        "sampling in .*config.json cannot be used: temperature is -1",
    ),
    "no part": (lambda f: change(f, lambda c: c.pop("dfvqgan")), "dfvqgan in .* is missing; it must be an object"),
    "odd defaults": (
        lambda f: change(f, lambda c: c.update(sampling=[1])),
        r"sampling in .* is \[1\]; it must be an object",
    ),
    "odd size": (
        lambda f: change(f, lambda c: c["mps2s"].update(width="x")),
        "mps2s in .*: width is 'x'; it must be int",
    ),
    "no heads": (lambda f: change(f, lambda c: c["mps2s"].update(heads=0)), "mps2s in .* cannot be used"),
    "odd encoder": (
        lambda f: change(f, lambda c: c["mps2s"].update(text_encoder="x")),
        "mps2s in .*: text_encoder is 'x'; it must be dict",
    ),
    "bad size": (lambda f: change(f, lambda c: c["dfvqgan"].update(groups=7)), "groups"),
    "negative size": (
        lambda f: change(f, lambda c: c["mps2s"].update(text_vocab=-1)),
        "mps2s in .* cannot be used",
    ),
    "other size": (
        lambda f: change(f, lambda c: c["dfvqgan"].update(codebook_size=65)),
        r"dfvqgan's quantiser.codebook has shape \[64, 8\], config.json asks for \[65, 8\]",
    ),
    "fewer weights": (drop_weight, "the weights of mps2s lack embedding.weight"),
    "more weights": (add_weight, "the weights of dfvqgan have more too many"),
    "index": (index({}), "has no weight_map"),
    "index of lists": (index({"weight_map": {"a": ["x"]}}), "has no weight_map"),
    "index outside": (index({"weight_map": {"a": "../secret.safetensors"}}), "has no weight_map"),
    "index of nothing": (index({"weight_map": {"a": "part-9.safetensors"}}), "part-9.safetensors is missing"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_folder_that_is_off_is_refused_in_one_line(name: str, tiny_model: Path, tmp_path: Path) -> None:
    spoil, says = BROKEN[name]
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    spoil(folder)
    with pytest.raises(InputError, match=says) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_no_pickle_is_read(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "mps2s.safetensors").unlink()
    torch.save({}, folder / "mps2s.bin")
    torch.save({}, folder / "mps2s.pt")
    with pytest.raises(InputError, match="mps2s.safetensors is missing"):
        load_model(folder)


def test_parts_of_different_models_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    parts = parts_of(tiny_model)
    config = DFVQGANConfig.preset("tiny")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"dfvqgan": DFVQGAN(dataclasses.replace(config, codebook_size=32))}, "for 64 codes, .* has 32"),
        (
            {"dfvqgan": DFVQGAN(dataclasses.replace(config, resolution=64))},
            "for 32 pixels on a side, .* has 64",
        ),
        (
            {"dfvqgan": DFVQGAN(dataclasses.replace(config, channels=(16, 32)))},
            "for 8 tokens on a side, .* has 16",
        ),
        ({"tokenizer": CaptionTokenizer.train(["a"], 300, max_length=99)}, "of 512 word pieces, .* gives 99"),
        ({"tokenizer": None}, "no use without its tokenizer"),
    ]
    for other, says in wrong:
        with pytest.raises(InputError, match=says):
            save_model(tmp_path / "model", **(parts | other))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; a model needs a folder"):
        save_model(tmp_path / "file", **parts)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_names_lead_to_folders(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(tiny_model) == tiny_model and resolve(str(tiny_model)) == tiny_model
    assert resolve(BUNDLED[0]).name == BUNDLED[0]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "model.safetensors").touch()
    for name in ("nonsense", "models/nonsense", "model.safetensors", "/no/such/place", "a/b/c", "a b/c", ""):
        with pytest.raises(InputError, match=f"there is no model '{name}'.*bundled name .nuwa-lip-mini."):
            resolve(name)


def test_a_hub_id_is_looked_up_in_the_cache_alone(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "cached", lambda *given: tiny_model / given[1])
    assert resolve("somebody/some.model-1") == tiny_model
    monkeypatch.setattr(hub, "cached", lambda *_: None)
    with pytest.raises(InputError, match="'some/model-1' is not in the hub's cache: .* 'nuwa-lip pull some/model-1'"):
        resolve("some/model-1")


def test_models_are_fetched_without_pickles(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    with fake_hub("us/tiny", files | {"mps2s.bin": b"pickled"}, monkeypatch, tmp_path / "cache"):
        assert contents(fetch("us/tiny", MODEL_FILES)) == contents(tiny_model)


def test_without_a_network_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route to host\nand much more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(InputError, match="'a/b' cannot be fetched: no route to host$"):
        fetch("a/b", MODEL_FILES)


def test_upload(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    split = ["dfvqgan-00001-of-00002.safetensors", "mps2s.safetensors.index.json", "tokenizer.json"]
    others = ["README.md", "mps2s-ema/step.safetensors", "dfvqgan/v1.safetensors", "old/tokenizer.json"]

    class Api:
        def list_repo_files(self, repo_id: str) -> list[str]:
            return [*split, "mps2s[1].safetensors", *others]

        def create_repo(self, repo_id: str, private: bool | None, exist_ok: bool) -> str:
            seen.update(repo_id=repo_id, private=private)
            return f"https://hub/{repo_id}"

        def upload_folder(self, repo_id: str, folder_path: Path, delete_patterns: list[str]) -> None:
            old = filter_repo_objects(self.list_repo_files(repo_id), allow_patterns=delete_patterns)  # as the hub does
            seen.update(files=contents(folder_path), deleted=list(old))
            if repo_id == "a/refused":
                raise OSError("not allowed\nat all")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert push_to_hub("a/b", private=True, **parts_of(tiny_model)) == "https://hub/a/b"
    assert seen["private"] is True and seen["files"] == contents(tiny_model)
    assert seen["deleted"] == [*split, "mps2s[1].safetensors"], "split weights would stay in force"
    with pytest.raises(InputError, match="cannot upload to 'a/refused': not allowed$"):
        push_to_hub("a/refused", **parts_of(tiny_model))


def test_the_network_is_touched_here_alone() -> None:
    """But for the client, which asks the server that its user names, and shards that are named by their address."""
    others = [("serving", "client.py"), ("data", "remote.py")]
    for path in Path(hub.__file__).parent.rglob("*.py"):
        if re.search("snapshot_download|HfApi|hf_hub_download|urlopen|httpx", path.read_text()):
            assert path.name == "hub.py" or path.parts[-2:] in others


def test_others_may_read_what_they_may_enter(tiny_model: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "model", **load_model(tiny_model)._asdict())
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
    assert modes["dfvqgan.safetensors"] == modes["mps2s.safetensors"] == modes["config.json"], modes
