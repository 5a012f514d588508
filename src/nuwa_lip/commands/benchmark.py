"""`nuwa-lip data benchmark`: captioned photos with frozen, hashed masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from nuwa_lip.data.benchmark import build_benchmark, read_benchmark, verify_benchmark
from nuwa_lip.data.sources import open_source
from nuwa_lip.errors import InputError


def benchmark(
    *,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    source: list[str] | None = None,
    rule: str = "rectangles-40-60",
    seed: int = 0,
    limit: int | None = None,
    verify: bool = False,
) -> None:
    """Build a benchmark folder from captioned photos, or check one against its hashes.

    Example: nuwa-lip data benchmark --source test-000000.tar --rule rectangles-40-60 -o benchmarks/test

    Example: nuwa-lip data benchmark -o benchmarks/test --verify

    Args:
        out: The benchmark folder.
        source: Shards (files or patterns), or one folder of captioned photos.
        rule: KIND-LOW-HIGH: rectangles, strokes, border or center, covering LOW to HIGH per cent.
        seed: Of the masks.
        limit: Number of photos, the first ones of the source.
        verify: Build nothing; compare the folder with its hashes.
    """
    if verify:
        made = read_benchmark(out)
        verify_benchmark(made)
        Console().print(f"{out}: {len(made)} photos, all as recorded; sha256 {made.sha256}", highlight=False)
        return
    if not source:
        raise InputError("--source is missing: shards or a folder of captioned photos")
    if seed < 0:
        raise InputError(f"--seed {seed} is negative")
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit} is too small: 1 photo at least")
    name = " ".join(Path(s).name for s in source)
    made = build_benchmark(open_source(source), source=name, rule=rule, seed=seed, out=out, limit=limit)
    Console().print(f"{out}: {len(made)} photos, sha256 {made.sha256}", highlight=False)
