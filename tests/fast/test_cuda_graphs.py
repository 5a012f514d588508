"""CUDA graphs: a step that is captured once gives what one that is run gives, with a stand-in where there is no GPU."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nuwa_lip.fast import cuda_graphs
from nuwa_lip.models import MPS2S
from nuwa_lip.models.groups import group_sizes
from nuwa_lip.pipeline import InpaintPipeline
from nuwa_lip.sampling import Sampling, loop, sample
from tests.small_models import HOLE, K, make_memories, make_model, seeded

CANDIDATES = 3


class Tape(TorchDispatchMode):
    """What a CUDA graph is, on a CPU: operations that are recorded, and run again in the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        for func, args, kwargs, result in self.operations:
            given, made = ([x for x in tree_leaves(tree) if isinstance(x, Tensor)] for tree in ((args, kwargs), result))
            places = {x.untyped_storage().data_ptr() for x in given}
            if not func._schema.is_mutable and any(x.untyped_storage().data_ptr() in places for x in made):
                continue  # a view: it is where it was
            again = [x for x in tree_leaves(func(*args, **kwargs)) if isinstance(x, Tensor)]
            for old, new in zip(made, again, strict=True):
                if not func._schema.is_mutable:
                    old.copy_(new)


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    class Stream:
        def wait_stream(self, other: Stream) -> None:
            pass

    @contextmanager
    def graph(tape: Tape, **options: str) -> Iterator[None]:
        with tape:
            yield

    monkeypatch.setattr(cuda_graphs, "_stream", lambda _: Stream())
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Tape)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    yield


@pytest.fixture(scope="module", params=[False, True], ids=["learned positions", "rotary and pointer"])
def model(request: pytest.FixtureRequest) -> MPS2S:
    return make_model(rotary=request.param, pointer=request.param)


@pytest.mark.usefixtures("tape")
def test_a_function_runs_twice_and_is_then_replayed() -> None:
    calls, total = [], torch.zeros(2)

    def add(x: Tensor, y: Tensor) -> Tensor:
        calls.append(1)
        total.copy_(total + 10)
        return (x * y).view(1, 2) + 1

    x, y = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    graph = cuda_graphs.Graph(add, x, y)
    before = total.clone()
    first = graph(x, y)
    assert first.tolist() == [[4.0, 9.0]]
    second = graph(y, y)
    assert second is first and first.tolist() == [[10.0, 17.0]], "in the same memory"
    assert len(calls) == 2 and (total - before).tolist() == [20.0, 20.0]
    assert x.tolist() == [1.0, 2.0], "arguments stay the caller's"


@pytest.mark.usefixtures("tape")
def test_a_graph_holds_what_its_function_holds() -> None:
    """It is replayed in that memory, which must not become another's."""
    held = torch.zeros(2)
    kept = weakref.ref(held)
    graph = cuda_graphs.Graph(lambda x, y=held: x + y, torch.ones(2))
    graph._graph.operations.clear()  # type: ignore[attr-defined] # unlike a CUDA graph the stand-in holds tensors
    del held
    assert kept() is not None
    del graph
    assert kept() is None


@pytest.mark.usefixtures("tape")
@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("order", ["raster", "random"])
def test_a_captured_step_decodes_as_one_that_is_run(model: MPS2S, scale: float, order: str) -> None:
    memory, none = make_memories(model, HOLE)
    both = memory if scale == 1 else loop._together([memory, none])
    sampling = Sampling(guidance_scale=scale, temperature=0.9, top_k=9, top_p=0.95, order=order)

    def decode(graph: bool) -> tuple[Tensor, Tensor]:
        plan = loop._Plan.make(memory.token_mask, [1, 2, 3], CANDIDATES, group_sizes(K, None), sampling)
        assert plan.one_by_one
        progress = loop._Progress(lambda step, total: steps.append(step), None, K)
        cache = plan.prefill(model.decoder, both)
        return loop._decode(model.decoder, both, plan, sampling, progress, cache=cache, graph=graph)

    steps: list[int] = []
    expected, found = decode(False), decode(True)
    assert steps == [*range(1, K + 1)] * 2
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_on_a_gpu_draws_what_steps_draw(model: MPS2S) -> None:
    there = make_model(rotary=model.config.rotary, pointer=model.config.pointer).cuda()
    memory, none = make_memories(model, HOLE)
    memory, none = memory.to("cuda"), none.to("cuda")
    for scale in (1.0, 3.0):
        options: dict[str, Any] = {"num_candidates": CANDIDATES, "unconditional": none, "guidance_scale": scale}
        plain = sample(there, memory, generator=seeded(0), **options)
        graph = sample(there, memory, generator=seeded(0), graph=True, **options)
        assert torch.equal(plain[0], graph[0])
        torch.testing.assert_close(plain[1], graph[1], atol=1e-4, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_compiled_pipeline_on_a_gpu_repaints_holes_of_any_size() -> None:
    pipe = InpaintPipeline.from_pretrained("nuwa-lip-mini").to("cuda", torch.bfloat16).compile()
    photo = np.random.default_rng(0).integers(0, 255, (96, 80, 3), dtype=np.uint8)
    for size in (20, 45):
        mask = np.zeros((96, 80), dtype=bool)
        mask[10 : 10 + size, 10 : 10 + size] = True
        options: dict[str, Any] = {"image": photo, "mask_image": mask, "output_type": "np", "num_images_per_prompt": 2}
        one, other = (pipe("grass", generator=seeded(0), top_p=0.9, **options).images for _ in range(2))
        assert np.array_equal(one, other), "the same seed gives the same pictures"
        assert np.array_equal(one[0][~mask], photo[~mask]) and not np.array_equal(one[0][mask], photo[mask])


def test_attention_of_cudnn_is_left_out_where_a_gpu_is_used() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        cuda_graphs.disable_cudnn_attention(torch.device("cpu"))
        assert torch.backends.cuda.cudnn_sdp_enabled()
        cuda_graphs.disable_cudnn_attention(torch.device("cuda"))
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
