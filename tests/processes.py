"""Several processes that train together over gloo, as `torchrun` would start them, but from one that has imported all.

They meet in a file, so that no port can be taken.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import secrets
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
# the second two are imported by an optimizer and by a log of training, which takes each process 2 s
CONTEXT.set_forkserver_preload(
    [
        *("torch.distributed.tensor", "nuwa_lip.training.dfvqgan", "nuwa_lip.training.mps2s"),
        *("torch._dynamo", "torch.utils.tensorboard", "huggingface_hub.serialization"),
    ]
)
# these tests are no installed package, and other packages bring one of the name
START = f"""
import importlib, sys, types
tests = sys.modules["tests"] = types.ModuleType("tests")
tests.__path__ = [{str(Path(__file__).parent)!r}]
getattr(importlib.import_module(module), name)(*arguments)
"""


def started(work: Callable[..., None], *args: Any) -> Any:
    """Start one process that does `work(*args)`, of a module of these tests."""
    names = {"module": work.__module__, "name": work.__name__, "arguments": args}
    process = CONTEXT.Process(target=exec, args=(START, names))
    process.start()
    return process


def together(count: int, folder: Path, work: Callable[..., None], *args: Any) -> None:
    """Run `work(*args)` in so many processes of one group; an error in one of them is raised here."""
    meeting, errors = folder / f"meet-{secrets.token_hex(4)}", folder / f"errors-{secrets.token_hex(4)}"
    where = (work.__module__, work.__name__)
    group = [started(one, rank, count, meeting, errors, where, args) for rank in range(count)]
    for process in group:
        process.join(120)
    late = [process for process in group if process.is_alive()]
    for process in late:
        process.kill()
    said = errors.read_text() if errors.exists() else "without a word"
    assert not late and not any(process.exitcode for process in group), said


def one(rank: int, count: int, meeting: Path, errors: Path, where: tuple[str, str], args: tuple[Any, ...]) -> None:
    """Be one of the processes."""
    import torch

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count))
    os.environ.update(MASTER_ADDR="localhost", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    try:
        if count > 1:
            torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=count)
        getattr(importlib.import_module(where[0]), where[1])(*args)
    except BaseException:
        with errors.open("a") as file:
            file.write(traceback.format_exc())
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
