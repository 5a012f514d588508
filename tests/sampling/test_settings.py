"""Settings of sampling: values out of range, and of another type."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, Optional

import pytest

from nuwa_lip.errors import InputError
from nuwa_lip.sampling import Sampling


@pytest.mark.parametrize(
    "values",
    [
        {"guidance_scale": math.nan},
        {"temperature": "warm"},
        {"temperature": None},
        {"top_k": 1.5},
        {"top_k": True},
        {"top_k": -1},
        {"top_p": 0},
        {"order": "spiral"},
        {"num_inference_steps": 0},
        {"schedule": ["cosine"]},
        {"revisions": -1},
        {"revisions": 1001},
        {"blend": "off"},
    ],
)
def test_values_that_cannot_be_are_named(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(values)).partition('_')[0]}.* is |there is no order 'spiral'"):
        Sampling(**values)
    Sampling(top_k=0, temperature=0)  # all tokens, the likeliest


@pytest.mark.parametrize(("scale", "revising"), [(1.0, 1.0), (5.0, 2.0), (0.0, 0.75), (math.nextafter(1, 2), None)])
def test_revisions_are_guided_less(scale: float, revising: float | None) -> None:
    sampling = Sampling(guidance_scale=scale, top_k=3)
    assert sampling.revising == (sampling if revising is None else Sampling(guidance_scale=revising, top_k=3))
    assert sampling.revising.guided == sampling.guided


def test_fields_may_be_of_any_annotated_kind() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class More(Sampling):
        style: Literal["plain", "bold"] = "plain"
        size: Optional[float] = None  # noqa: UP045 - as others may write it

    assert More(style="bold", size=3, top_k=5).size == 3
    for values in ({"style": "italic"}, {"style": None}, {"size": "3"}, {"size": True}, {"top_k": 1.5}):
        with pytest.raises(InputError, match=f"{next(iter(values))} is "):
            More(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [1e308, -1e308, 10**400, math.inf, 1_000_001])
def test_guidance_that_would_make_logits_infinite_is_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"guidance_scale is .*; it must be a finite number, at most 1,000,000"):
        Sampling(guidance_scale=value)
    with pytest.raises(InputError, match="temperature is"):
        Sampling(temperature=10**400)
    assert Sampling(guidance_scale=1e6).guided
