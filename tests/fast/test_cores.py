"""Small models compute on one core, and every thread, of now and of later, has its own number of cores back."""

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from nuwa_lip.fast import cores
from nuwa_lip.fast.cores import one_core_if_small, settle_cores

MODEL = nn.Linear(2, 2)


@pytest.fixture(autouse=True)
def two_cores() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_a_large_model_keeps_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = sum(p.numel() for p in MODEL.parameters())
    for small, expected in ((parameters, 2), (parameters + 1, 1)):
        monkeypatch.setattr(cores, "SMALL", small)
        with one_core_if_small(MODEL):
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == 2


def test_an_error_gives_the_cores_back() -> None:
    with pytest.raises(KeyboardInterrupt), one_core_if_small(MODEL):
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 2


def test_cores_are_given_back_to_all_of_several_threads() -> None:
    inside, alone = threading.Event(), threading.Event()
    seen = []

    def overlapping() -> None:
        with one_core_if_small(MODEL):
            inside.set()
            alone.wait(10)
        seen.append(torch.get_num_threads())

    other, later = threading.Thread(target=overlapping), threading.Thread(target=overlapping)
    with one_core_if_small(MODEL):
        other.start()
        inside.wait(10)
    seen.append(torch.get_num_threads())
    alone.set()
    other.join()
    later.start()
    later.join()
    assert seen == [2, 2, 2] and torch.get_num_threads() == 2


def test_a_thread_that_begins_beside_another_has_all_cores() -> None:
    seen: list[int] = []

    def begin() -> None:
        settle_cores()
        seen.append(torch.get_num_threads())

    with one_core_if_small(MODEL), one_core_if_small(MODEL):  # nested, as where a callback repaints
        thread = threading.Thread(target=begin)
        thread.start()
        thread.join()
        assert torch.get_num_threads() == 1 and seen == [2]
    with cores._changing:  # the moment in which a new thread would begin with one core
        torch.set_num_threads(1)
        late = threading.Thread(target=begin)
        late.start()
        late.join(0.3)
        torch.set_num_threads(2)
    late.join()
    assert seen == [2, 2]
