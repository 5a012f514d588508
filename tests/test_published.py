"""Weights that are not bundled: where they are looked for, what is said where they are not, and what is never read."""

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from nuwa_lip import hub
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.job import Weights
from nuwa_lip.published import EFFICIENTNET, INCEPTION, VGG16, find_weights, lpips_heads, read_weights


@pytest.fixture
def no_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, and a network that would fail the test."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("nobody asked for the network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", never)
    monkeypatch.setattr(hub, "cached", lambda repo, file: None)
    return tmp_path / "torch" / "checkpoints"


def test_absence_is_one_line_that_says_what_to_put_where(no_caches: Path) -> None:
    for wanted, option in ((INCEPTION, "--inception"), (VGG16, "--vgg"), (EFFICIENTNET, "--lite")):
        with pytest.raises(InputError) as caught:
            find_weights(wanted, None, download=False)
        said = str(caught.value)
        assert wanted.url in said and str(no_caches) in said and option in said and "\n" not in said
    with pytest.raises(InputError, match="--vgg .*absent.pth is missing"):
        find_weights(VGG16, no_caches / "absent.pth", download=False)


def test_caches_come_before_the_network(no_caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, path, hash_prefix: fetched.append((url, path)))
    target = no_caches / "weights-inception-2015-12-05-6726825d.pth"
    assert find_weights(INCEPTION, None, download=True) == target
    assert fetched == [(INCEPTION.url, str(target))]
    target.write_bytes(b"")
    assert find_weights(INCEPTION, None, download=True) == target and len(fetched) == 1


def test_a_download_that_fails_is_one_line(no_caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(InputError, match="could not be downloaded as .*: no route to host$"):
        find_weights(INCEPTION, None, download=True)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def test_only_tensors_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pth"):
        assert read_weights(tmp_path / name)["a"].tolist() == [1, 1]
    torch.save({"a": Payload()}, tmp_path / "bad.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Payload()))
    (tmp_path / "half.safetensors").write_bytes(b"x")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("bad.pth", "old.pth", "half.safetensors", "list.pth"):
        with pytest.raises(InputError, match=name) as caught:
            read_weights(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_heads_come_with_torchmetrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [len(head) for head in lpips_heads()] == [64, 128, 256, 512, 512]
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="does not hold the heads of LPIPS: lin0"):
        lpips_heads(tmp_path / "a.safetensors")
    monkeypatch.setattr("nuwa_lip.published.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'nuwa-lip\[evaluate\]'"):
        lpips_heads()


def test_wrong_weights_and_missing_libraries(no_caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"features.0.weight": torch.ones(2)}, file)
    with pytest.raises(InputError, match="--vgg does not hold the weights of VGG-16"):
        Weights(vgg=file).networks(["lpips"])
    with pytest.raises(InputError, match="--lite does not hold the weights of EfficientNet-Lite0"):
        Weights(lite=file).networks(["fed"])
    with pytest.raises(InputError, match="not the weights of FID's Inception v3") as caught:
        Weights(inception=file).networks(["kid"])
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="--metrics clip needs CLIP's weights"):
        Weights(clip=str(tmp_path)).networks(["clip"])
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(InputError, match=r"torch-fidelity: pip install 'nuwa-lip\[evaluate\]'"):
        Weights(inception=file).networks(["kid"])
