"""A slice of the fuzz of a server's requests: `python tests/fuzz_requests.py` tries thousands."""

from pathlib import Path

from tests.fuzz_requests import run


def test_malformed_requests_are_refused_and_the_server_paints_on(tiny_model: Path) -> None:
    wrong, counts = run(range(80), 0, str(tiny_model))
    assert wrong == [] and counts["4xx"] >= 50 and counts["2xx"] >= 2
