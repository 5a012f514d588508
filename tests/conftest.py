"""What several tests share: the command, and models with random weights that run in a blink."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

# Before PyTorch reads them, and inherited by every process that a test starts: the threads of a small model mostly wait
# for one another, which beside a busy process takes many times as long as the work. OMP_NUM_THREADS=4 tries four.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from nuwa_lip.cli import main
from nuwa_lip.data.photos import PhotoSet
from nuwa_lip.evaluation.store import Store
from nuwa_lip.hub import save_model
from nuwa_lip.models import DFVQGAN, MPS2S, DFVQGANConfig, MPS2SConfig
from nuwa_lip.pipeline import InpaintPipeline
from nuwa_lip.sampling import Sampling
from nuwa_lip.tokenizer import CaptionTokenizer
from tests.browsers import CHROMIUM
from tests.small_runs import make_shards

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# the same examples every time; a slow machine is no failure
settings.register_profile("suite", derandomize=True, deadline=None)
settings.load_profile("suite")

CAPTIONS = ["a black bear in the green grass", "two people on a sandy beach", "a grey sky over the sea"]


def tiny_parts() -> tuple[DFVQGAN, MPS2S, CaptionTokenizer]:
    """The parts of a model with random weights, the same every time."""
    torch.manual_seed(0)
    config = MPS2SConfig.preset("tiny")
    tokenizer = CaptionTokenizer.train(CAPTIONS, vocab_size=280, max_length=config.text_length)
    dfvqgan, mps2s = DFVQGAN(DFVQGANConfig.preset("tiny")), MPS2S(config)
    return dfvqgan.eval().requires_grad_(False), mps2s.eval().requires_grad_(False), tokenizer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the file that takes minutes, so that none of several processes is left alone with it at the end."""
    items.sort(key=lambda item: item.path.name != "test_shapes_end_to_end.py")


@pytest.fixture
def apart() -> Iterator[None]:
    """No compiled graph of another test, of which there may only be so many."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    limit = torch._dynamo.config.recompile_limit
    yield
    torch._dynamo.config.recompile_limit = limit
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        pytest.skip("no browser to open pages in: install chromium, as CI does")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model folder."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    dfvqgan, mps2s, tokenizer = tiny_parts()
    sampling = Sampling(num_inference_steps=2)
    save_model(folder, dfvqgan=dfvqgan, mps2s=mps2s, tokenizer=tokenizer, sampling=sampling, card="# Tiny\n")
    return folder


@pytest.fixture(scope="session")
def tiny_pipe(tiny_model: Path) -> InpaintPipeline:
    """The same, loaded."""
    return InpaintPipeline.from_pretrained(tiny_model)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captioned shapes to train on."""
    return make_shards(tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture(scope="session")
def photos(shards: Path) -> PhotoSet:
    """The same, loaded."""
    return PhotoSet.load(shards, 40)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP with random weights that reads letters."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(i) for i in range(97, 123)]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}).save_pretrained(folder)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": len(pieces) - 2, "eos_token_id": len(pieces) - 1}
    config = CLIPConfig(
        text_config={**small, **ends, "vocab_size": len(pieces), "max_position_embeddings": 12},
        vision_config={**small, "image_size": 8, "patch_size": 4},
        projection_dim=4,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def photo_file(tmp_path: Path) -> Path:
    """A photo of 60 x 40 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def mask_file(tmp_path: Path) -> Path:
    """A mask for it: 20 x 10 white pixels."""
    mask = Image.new("L", (60, 40))
    mask.paste(255, (20, 15, 40, 25))
    path = tmp_path / "mask.png"
    mask.save(path)
    return path


class Done(NamedTuple):
    """What a command has left."""

    code: int
    out: str
    err: str


@pytest.fixture
def nuwa_lip(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run `nuwa-lip WORDS...` within this process."""

    def run(*words: object) -> Done:
        capsys.readouterr()
        try:
            main([str(word) for word in words])
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def measured_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Photos whose figures this process has kept, not those of its helpers."""
    names: list[str] = []
    save = Store.save

    def recorded(store: Store, index: int, arrays: Mapping[str, Any]) -> None:
        names.append(f"{index:05d}")
        save(store, index, arrays)

    monkeypatch.setattr(Store, "save", recorded)
    return names


@pytest.fixture
def workers_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes are played by this one, which has everything imported; what they are given is sent.

    The tests of `evaluate images` and `evaluate tokenizer` start real ones.
    """

    class Here(Executor):
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
            function, args, options = pickle.loads(pickle.dumps((function, args, options)))
            future: Future[Any] = Future()
            future.set_result(function(*args, **options))
            return future

    monkeypatch.setattr("nuwa_lip.evaluation.job.ProcessPoolExecutor", Here)
