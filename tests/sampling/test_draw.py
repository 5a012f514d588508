"""Drawing of one token: the distribution after temperature, top-k and top-p."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nuwa_lip.sampling import Sampling
from nuwa_lip.sampling.draw import draw

PROBABILITIES = torch.tensor([0.4, 0.05, 0.3, 0.15, 0.1])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.4, 0.05, 0.3, 0.15, 0.1]),
        ({"top_k": 2}, [4 / 7, 0, 3 / 7, 0, 0]),
        ({"top_k": 0}, [0.4, 0.05, 0.3, 0.15, 0.1]),
        ({"top_k": 99}, [0.4, 0.05, 0.3, 0.15, 0.1]),
        ({"top_k": 1}, [1, 0, 0, 0, 0]),
        ({"top_p": 0.69}, [4 / 7, 0, 3 / 7, 0, 0]),
        ({"top_p": 0.71}, [0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85, 0]),
        ({"top_p": 1e-9}, [1, 0, 0, 0, 0]),
        ({"top_p": 1.0}, [0.4, 0.05, 0.3, 0.15, 0.1]),
        ({"top_k": 3, "top_p": 0.8}, [4 / 7, 0, 3 / 7, 0, 0]),  # 0.3 + 0.4 of 0.85 are more than 0.8
        ({"temperature": 0.5}, [p * p / 0.285 for p in (0.4, 0.05, 0.3, 0.15, 0.1)]),
        ({"temperature": 0.5, "top_p": 0.8}, [16 / 25, 0, 9 / 25, 0, 0]),
        ({"temperature": 1e-300}, [1, 0, 0, 0, 0]),
        ({"temperature": 0}, [1, 0, 0, 0, 0]),
        ({"temperature": 1e9}, [0.2] * 5),
    ],
)
def test_tokens_are_drawn_from_the_filtered_distribution(options: dict[str, Any], expected: list[float]) -> None:
    count = 2000
    uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count  # evenly spread: no luck involved
    tokens = draw(PROBABILITIES.log().expand(count, -1), uniform, Sampling(**options))
    shares = tokens.bincount(minlength=5) / count
    torch.testing.assert_close(shares, torch.tensor(expected, dtype=shares.dtype), atol=1.5 / count, rtol=0)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=9),
    st.sampled_from([0.0, 0.5, 1 - 2**-53]),
    st.none() | st.integers(1, 9),
    st.none() | st.floats(0.01, 1.0),
)
def test_a_token_that_is_filtered_out_is_never_drawn(
    values: list[float], uniform: float, top_k: int | None, top_p: float | None
) -> None:
    logits = torch.tensor(values)
    token = int(draw(logits[None], torch.tensor([uniform], dtype=torch.float64), Sampling(top_k=top_k, top_p=top_p)))
    probabilities = logits.double().softmax(-1)  # logits may differ by less than these resolve
    likelier = probabilities > probabilities[token]
    assert 0 <= token < len(values)
    assert top_k is None or int(likelier.sum()) < top_k
    mass = float(probabilities[likelier].sum())
    assert top_p is None or top_k is not None or mass < top_p + 1e-9


def test_ties_do_not_widen_top_k() -> None:
    uniform = torch.linspace(0, 0.999, 50, dtype=torch.float64)
    tokens = draw(torch.zeros(50, 8), uniform, Sampling(top_k=2))
    assert set(tokens.tolist()) == {0, 1}
