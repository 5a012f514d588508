"""Every stage runs at tiny sizes, on the CPU and on a GPU of fake tensors."""

import dataclasses
import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nuwa_lip.assets import asset
from nuwa_lip.bench import decoding, inpaint, peers, quality, sizes, stages, training, whole
from nuwa_lip.bench.compare import differences
from nuwa_lip.bench.limits import Limits, has_bf16
from nuwa_lip.bench.measure import Child, machine, timings
from nuwa_lip.bench.sizes import SMALL, Sizes
from nuwa_lip.commands import bench
from nuwa_lip.models.perceptual import squeezenet
from nuwa_lip.training.dfvqgan import SQUEEZENET
from tests.fake_gpu import GPU, fake_gpu


def shrink_photos(monkeypatch: pytest.MonkeyPatch) -> Sizes:
    """Whole images are drawn token by token in every form: 8 tokens of 16 instead of 32 of 64."""
    mps2s = dataclasses.replace(SMALL.mps2s, grid=(4, 4), image_size=16, decoder_layers=1)
    small = dataclasses.replace(SMALL, mps2s=mps2s, dfvqgan=dataclasses.replace(SMALL.dfvqgan, resolution=16))
    monkeypatch.setattr(sizes, "SMALL", small)
    return small


@pytest.mark.usefixtures("no_processes")
@pytest.mark.parametrize("name", stages.STAGES)
def test_every_stage_runs_small(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decoding, "LEAST", 0.0)
    # tracing takes most of the time: one form of the step is traced, the others run as they are
    compiling = iter([decoding.compile_step] if name == "step" else [])
    monkeypatch.setattr(
        decoding, "compile_step", lambda *args, **how: [do(*args, **how) for do in islice(compiling, 1)]
    )
    # the command itself runs in the test of growth
    monkeypatch.setattr(inpaint, "children", lambda cases, rounds: dict.fromkeys(cases, Child(1.0, 1.0, "")))
    if name == "memory":  # which is of bf16 only: so small a model is quick where bf16 is emulated, too
        monkeypatch.setattr("nuwa_lip.bench.sizes.precisions", lambda device: ["fp32", "bf16"])
    if name == "image":
        shrink_photos(monkeypatch)
    out, before = tmp_path / "out.json", tmp_path / "before.json"
    rows = [{"what": "reading memory, best of ten", "value": 1e-9, "unit": "GB/s"}]
    before.write_text(json.dumps({**machine(), **stages.settings(small=True), "rows": rows}))
    bench.bench(stages=name, rounds=1, small=True, json=out, markdown=tmp_path / "out.md", compare=before)
    report = json.loads(out.read_text())
    assert report["stages"] == [name] and report["rows"]
    values = [row["value"] for row in report["rows"]]
    assert all(isinstance(value, float) for value in values)
    printed = capsys.readouterr()
    assert f"## {name}\n" in printed.out and (tmp_path / "out.md").read_text() in printed.out
    assert ("reading memory, best of ten: 1e-09 →" in printed.out) == (name == "limits")
    assert not [line for line in report["skipped"] if "failed" in line and "static cache" not in line]
    timed = [row for row in report["rows"] if "bf16 int4" in row["what"] and row["unit"] in ("ms", "s")]
    assert all(row["divergence"] > 0 for row in timed)
    assert timed or name not in ("step", "image") or not has_bf16()
    if name == "quality":
        figures = {row["what"].rpartition(", ")[2] for row in report["rows"]}
        assert {"increase of the loss", "divergence"} <= figures and "loss" not in figures
    assert not differences(report, {**machine(), **stages.settings(small=True)})


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("name", ["limits", "tokenizer", "encoders", "step", "image", "training"])
def test_every_stage_stays_on_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in it is computed, but what would be mixed with the CPU, or left on it, fails."""
    weights = load_file(asset(SQUEEZENET))
    monkeypatch.setattr(decoding, "LEAST", 0.0)
    monkeypatch.setattr(decoding, "_against_generate", lambda *_: [])  # it asks what is in tensors, for ever
    monkeypatch.setattr(whole, "pipelines", lambda _: [])
    once = lambda cases, rounds, **_: timings(cases, rounds, warm_up=False)  # noqa: E731 - proves as much as twice
    monkeypatch.setattr(whole, "timings", once)
    monkeypatch.setattr(quality, "known_loss", lambda *_: None)
    monkeypatch.setattr(training, "call_apart", lambda *_: Child(1.0, 1.0, "7.0"))
    # tracing takes most of the time, and the stage on the CPU does it; what would be compiled runs as it is
    monkeypatch.setattr(training, "compile_blocks", lambda blocks, *_, **__: list(blocks))
    monkeypatch.setattr(peers, "optional", lambda *_: None)
    small = shrink_photos(monkeypatch) if name == "image" else SMALL
    with fake_gpu(monkeypatch, small.defective):
        states = {key: torch.empty(weight.shape) for key, weight in weights.items()}
        monkeypatch.setattr(training, "load_perceptual", lambda _: squeezenet(states))
        found, skipped = stages.measure_stages([name], 1, small=True, device=GPU)
    rows = {row.what: row for row in found[name]}
    assert rows and not skipped
    bars = {what: row.bar for what, row in rows.items() if row.bar is not None}
    if name == "step":
        share = "share of the rate of reading, bf16 compiled"
        assert bars == {
            f"{share}, 1 candidate, 32 tokens": 0.35,
            f"{share}, layers of a 7 B model, 1 candidate, 32 tokens": 0.7,
        }
    elif name == "training":
        assert bars == {"training step, stage 2, ours, compiled: share of the matrix rate, bf16": 0.45}
        assert [row.value for row in rows.values() if row.unit == "MB"] == [7.0, 7.0]
    else:
        assert not bars, "those of two CPU cores mean nothing here"


def test_the_cpu_keeps_its_own_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages.limits, "measure_limits", lambda *_: Limits(products={}, size=1, read=1.0))
    monkeypatch.setattr(stages.limits, "settle", lambda _: None)
    found, skipped = stages.measure_stages(["data", "evaluation"], 1, small=True, device=GPU)
    assert not found and [line.partition(":")[0] for line in skipped] == ["data", "evaluation"]
