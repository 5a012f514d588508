"""What a form of the weights costs stands beside its times."""

from nuwa_lip.bench import quality
from nuwa_lip.bench.limits import Limits
from nuwa_lip.bench.measure import Row, markdown
from nuwa_lip.bench.sizes import SMALL, Bench, Form


def test_the_divergence_of_a_form_stands_beside_its_speed() -> None:
    known = Row(what="step, bf16 int8", value=2.0, unit="ms", divergence=0.00123)
    rows = [known, Row(what="peer", value=3.0, unit="ms")]
    assert markdown(rows).splitlines() == [
        "| what | measured | bar | divergence, nats a token |",
        "|---|---:|---:|---:|",
        "| step, bf16 int8 | 2 ms |  | 0.0012 |",
        "| peer | 3 ms |  | |",
    ]
    limits = Limits(products={}, size=1, read=1.0)
    bench_ = Bench(sizes=SMALL, limits=limits, rounds=1)
    exact = quality.beside(bench_, rows, Form("fp32"))
    assert [row.divergence for row in exact] == [None, None] and not bench_.losses
    few = quality.beside(bench_, rows, Form("fp32", "int4", compiled=True))
    assert few[0].divergence == few[1].divergence == bench_.losses["fp32 int4"].divergence > 0  # type: ignore[union-attr]
