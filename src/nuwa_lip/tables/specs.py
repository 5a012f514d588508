"""The paper's tables: rows, figures and claims. Rows are named as their files are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nuwa_lip.tables import paper
from nuwa_lip.tables.layout import Claim, Column, Row, Table

FSD = (
    "FSD is the Fréchet distance of SqueezeNet's features: a stand-in for FID, never FID itself.",
    "FSD and LPIPS-squeeze use SqueezeNet, the network whose perceptual loss trained our tokenizers but not GLIDE.",
)
FED = (
    "FED is the Fréchet distance of EfficientNet-Lite0's features. Nothing was trained with that network but projected "
    "discriminators, such as that of nuwa-lip-mini's decoder: of a row that had one it is no independent witness."
)
BLEND = "Our models are measured as the paper has them: colours are not blended at the hole's edge."
WINDOWS = (
    "NÜWA-LIP, fine-tuned or not, sees windows around the holes, enlarged to its own size; all others see the whole "
    "photo. NÜWA-LIP, whole photo, is the same model seeing that too: what lies between the two is what windows give. "
    "No window is smaller than the model's own square: on photos no larger than that, both rows are the same."
)
TOKENIZER_SORT = ("oracle/lpips_squeeze", "oracle/psnr_hole", "oracle/ring", "reconstruction/lpips_squeeze")
IMAGE_SORT = ("lpips_squeeze", "lpips_squeeze_hole", "psnr_hole", "ring", "clip_score", "bits")
OURS = ("nuwa", "nuwa-p", "nuwa-lip", "nuwa-lip-whole", "nuwa-lip-finetuned")
"""The rows of Table 1 that are models of ours, which may have several candidates."""
WITNESSES = ("psnr_hole", "ssim_hole", "krd")
"""Training sees SqueezeNet, as FSD and LPIPS-squeeze do: what is claimed of these must hold for figures that it has not
seen."""
NO_WORSE = 1.05
"""A ratio up to which a figure is no worse."""
RATIOS = ((20, 40), (40, 60), (60, 80))
"""Per cent of the photo that stage 2's training holes cover (footnote 6)."""
PERSPECTIVES: Mapping[str, tuple[str, ...]] = {
    "text": ("text",),
    "text-tokens": ("text", "tokens"),
    "text-pixels": ("text", "pixels"),
    "pixels-tokens": ("pixels", "tokens"),
    "all": ("text", "pixels", "tokens"),
    "df-vqgan": ("text", "pixels", "tokens"),
    "df-vqgan-text-pixels": ("text", "pixels"),
}
"""Perspectives of the rows of Table 4; the last two have another tokenizer, and the last is not the paper's: it shows
what tokens are worth that no hole has leaked into."""

_IMAGES = (
    Column(key="fsd", label="FSD ↓", paper="FID ↓"),
    Column(key="psnr", label="PSNR (dB) ↑", paper="PSNR ↑"),
    Column(key="lpips_squeeze", label="LPIPS-squeeze ↓", digits=4, paper="LPIPS ↓"),
    Column(key="clip_score", label="CLIP score ↑", paper="CS ↑"),
    Column(key="krd", label="KRD ↓", digits=4),
    Column(key="psnr_hole", label="PSNR, hole (dB) ↑"),
    Column(key="ssim_hole", label="SSIM, hole ↑", digits=4),
    Column(key="lpips_squeeze_hole", label="LPIPS-squeeze, hole ↓", digits=4),
    Column(key="ring", label="ring error ↓"),
    Column(key="known_max_change", label="max known change", digits=0),
    Column(key="fid", label="FID ↓", digits=4),
    Column(key="kid", label="KID ↓", digits=4),
    Column(key="lpips", label="LPIPS (VGG) ↓", digits=4),
    Column(key="fed", label="FED ↓"),
)
_KNOWN = (
    Column(key="relative_distance", label="relative distance ↓", digits=4),
    Column(key="changed", label="known codes that change ↓", digits=4),
)
"""Figures of what a hole does to known tokens."""
_ASKED = {"fid": "fid", "kid": "kid", "lpips": "lpips", "clip_score": "clip", "fed": "fed"}
"""Figures that are measured only with one of `images.EXTRAS`."""


def _ahead(ahead: str, behind: str, keys: Sequence[str], part: str = "", **more: Any) -> list[Claim]:
    """Claim that one row is ahead of another in each figure; `part` begins the keys, such as oracle/."""
    higher = ("psnr", "psnr_hole", "ssim_hole")
    return [Claim(ahead=ahead, behind=behind, key=part + key, higher=key in higher, **more) for key in keys]


def _likelihood(others: int) -> list[Column]:
    """Make the columns of likelihoods, with the true caption compared with N others."""
    return [
        Column(key="bits", label="bits per defective token ↓", digits=4),
        Column(key="swap_gain", label="bits gained by the true caption ↑", digits=4),
        Column(key="caption_rank", label=f"caption rank (chance {1 / (others + 1):.2g}) ↑", digits=3),
    ]


def _images(metrics: Sequence[str], printed: Sequence[str]) -> list[Column]:
    """Make the columns of results.

    Args:
        metrics: of `images.EXTRAS`, to be shown beside the usual figures.
        printed: keys of the figures that stand in the paper.
    """
    shown = [column for column in _IMAGES if column.key not in _ASKED or _ASKED[column.key] in metrics]
    return [column if column.key in printed else replace(column, paper=None) for column in shown]


def _oracle(keys: Sequence[str] = (), metrics: Sequence[str] = ()) -> list[Column]:
    """Make columns of oracle inpainting: in this order, and of what was asked for."""
    known = {column.key: column for column in _IMAGES}
    shown = [known[key] for key in (*keys, *(key for key in known if _ASKED.get(key) in metrics))]
    return [replace(one, key=f"oracle/{one.key}", label=f"oracle {one.label}", paper=None) for one in shown]


def _witnesses(metrics: Sequence[str]) -> tuple[str, ...]:
    """List the figures that training has not seen: `WITNESSES`, and FED where it was asked for."""
    return (*WITNESSES, "fed") if "fed" in metrics else WITNESSES


def _distances(metrics: Sequence[str]) -> tuple[str, ...]:
    """Write the notes about distances of sets."""
    return (*FSD, FED) if "fed" in metrics else FSD


def table1(benchmark: str = "", extra: Sequence[str] = (), best_of: int = 1, metrics: Sequence[str] = ()) -> Table:
    """Make Table 1: NÜWA-LIP against other methods.

    Args:
        benchmark: its name, which chooses the paper's figures to stand beside.
        extra: names of further rows.
        best_of: above 1 each model of ours has a second row with the best of N candidates.
        metrics: of `images.EXTRAS`, to be shown as well.
    """
    like = paper.benchmark_like(benchmark)
    labels = {
        "glide": "GLIDE",
        "nuwa": "NÜWA",
        "nuwa-p": "NÜWA-P",
        "nuwa-lip": "NÜWA-LIP",
        "nuwa-lip-whole": "NÜWA-LIP, whole photo",
        "nuwa-lip-finetuned": "NÜWA-LIP, fine-tuned",
        "telea": "OpenCV, Telea",
        "navier-stokes": "OpenCV, Navier-Stokes",
    } | {name: name for name in extra}
    rows = []
    for name, label in labels.items():
        rows.append(Row(name=name, label=label, paper=paper.TABLE1[like].get(name, {})))
        if best_of > 1 and name in OURS:
            rows.append(Row(name=f"{name}.best-of-{best_of}", label=f"{label}, best of {best_of}"))
    figures = ("fsd", "psnr", "lpips_squeeze", *_witnesses(metrics))
    claims = [
        *_ahead("nuwa-lip", "nuwa", figures),
        *_ahead("nuwa-lip", "nuwa-p", figures),
        *_ahead("nuwa-lip", "glide", figures, budget="time"),
        Claim(ahead="nuwa-lip", key="known_max_change", equals=0),
    ]
    return Table(
        name="table1",
        title=f"Table 1: language-guided inpainting (the paper's figures: {like})",
        kind="images",
        columns=_images(metrics, ("fsd", "psnr", "lpips_squeeze", "clip_score")),
        rows=rows,
        claims=claims,
        sort=IMAGE_SORT,
        notes=(
            *_distances(metrics),
            "Known pixels are changed by NÜWA alone among ours; NÜWA-P pastes them over its result.",
            WINDOWS,
            BLEND,
        ),
    )


def table2(codes: Sequence[int], metrics: Sequence[str] = ()) -> Table:
    """Make Table 2: VQGAN, VQGAN-P, VQGAN with partial convolutions and DF-VQGAN, in three vocabularies.

    Args:
        codes: sizes of the codebooks; the first two on the recipe's token grid, the third on a finer one.
        metrics: of `images.EXTRAS`, to be shown of oracle inpainting as well.
    """
    rows: list[Row] = []
    claims: list[Claim] = []
    beside: list[str] = []
    for vocabulary, size, (like, figures) in zip(("coarse", "coarse", "fine"), codes, paper.TABLE2, strict=True):
        end = f"{vocabulary}-{size}"
        tokens = f"{size} codes" + (" on the finer grid" if vocabulary == "fine" else "")
        beside.append(f"{tokens}: {like}")
        plain = f"vqgan-{end}"
        rows += [
            Row(name=plain, label=f"VQGAN, {tokens}", paper=figures["vqgan"]),
            Row(name=f"vqgan-p-{end}", label=f"VQGAN-P, {tokens}", source=plain, rename=("oracle/", "pasted/")),
            Row(name=f"partial-{end}", label=f"VQGAN, partial convolutions, {tokens}"),
            Row(name=f"df-vqgan-{end}", label=f"DF-VQGAN, {tokens}", paper=figures["df-vqgan"]),
        ]
        claims += _tokenizer_claims(end, figures, _witnesses(metrics))
    return Table(
        name="table2",
        title="Table 2: tokenizers, and Fig. 5",
        kind="tokenizer",
        columns=(
            Column(key="reconstruction/fsd", label="reconstruction FSD ↓", paper="reconstruction FID ↓"),
            Column(key="oracle/fsd", label="oracle FSD ↓", paper="oracle FID ↓"),
            Column(key="distance", label="average distance ↓", digits=4, paper="average distance ↓"),
            *_KNOWN,
            *_oracle(("ring", "psnr_hole", "ssim_hole", "krd")),
            Column(key="usage", label="codes in use", digits=3),
            *_oracle(metrics=metrics),
        ),
        rows=rows,
        claims=claims,
        picture="oracle",
        sort=TOKENIZER_SORT,
        notes=(
            *_distances(metrics),
            "The average distance is in each model's own scale; the relative one is divided by the distance of random "
            "pairs of latents, and is the one to judge by.",
            "VQGAN-P is the VQGAN with the known pixels pasted over its result. DF-VQGAN keeps them by itself: what it "
            "gains besides is told by the claims against VQGAN-P.",
            "Partial convolutions have the weights of the VQGAN, whose training has no holes.",
            "Codes in use are those of this benchmark's photos: few photos cannot use all of many codes.",
            f"The paper's rows that stand beside ours: {'; '.join(beside)}.",
        ),
    )


def _tokenizer_claims(end: str, figures: Mapping[str, paper.Figures], witnesses: Sequence[str]) -> list[Claim]:
    """Make the claims of Table 2 in one vocabulary; VQGAN-P shows what DF-VQGAN gains beyond keeping known pixels.

    Args:
        end: of the rows' names.
        figures: the paper's, of VQGAN and of DF-VQGAN.
        witnesses: figures that training has not seen.
    """
    ours, plain, pasted = (f"{name}-{end}" for name in ("df-vqgan", "vqgan", "vqgan-p"))
    ratio = {key: f"{figures['df-vqgan'][key] / figures['vqgan'][key]:.2f}" for key in figures["vqgan"]}
    distance, reconstruction = f"the distance itself {ratio['distance']}", f"FID {ratio['reconstruction/fsd']}"
    return [
        Claim(ahead=ours, behind=plain, key="oracle/fsd", at_most=0.5, paper=f"FID {ratio['oracle/fsd']}"),
        *_ahead(ours, plain, witnesses, "oracle/"),
        *_ahead(ours, pasted, ("fsd", *witnesses), "oracle/"),
        Claim(ahead=ours, behind=pasted, key="oracle/ring", paper="Fig. 5"),
        Claim(ahead=ours, behind=plain, key="relative_distance", at_most=0.79, paper=distance),
        Claim(ahead=ours, behind=plain, key="reconstruction/fsd", at_most=NO_WORSE, paper=reconstruction),
        Claim(ahead=ours, behind=plain, key="changed", paper="§3.2"),
        Claim(ahead=ours, behind=f"partial-{end}", key="changed", paper="§3.2"),
    ]


def table3(vocabulary: str, metrics: Sequence[str] = ()) -> Table:
    """Make Table 3: DF-VQGAN without both parts, with relative estimation only, and in full.

    Args:
        vocabulary: as in the models' names, such as coarse-1024.
        metrics: of `images.EXTRAS`, to be shown of oracle inpainting as well.
    """
    labels = {"vqgan": "neither (/SR)", "relative": "relative estimation only (/S)", "df-vqgan": "full"}
    rows = [Row(name=f"{name}-{vocabulary}", label=label, paper=paper.TABLE3[name]) for name, label in labels.items()]
    neither, relative, full = (row.name for row in rows)
    return Table(
        name="table3",
        title="Table 3: what each part of DF-VQGAN gives, by oracle inpainting, and Fig. 6",
        kind="tokenizer",
        columns=(
            Column(key="oracle/fsd", label="oracle FSD ↓", paper="FID ↓"),
            *_oracle(("psnr_hole", "ssim_hole", "krd", "lpips_squeeze", "ring")),
            *_KNOWN,
            Column(key="reconstruction/fsd", label="reconstruction FSD ↓"),
            *_oracle(metrics=metrics),
        ),
        rows=rows,
        claims=(
            Claim(ahead=full, behind=relative, key="oracle/fsd", paper="FID 2.95 < 5.44"),
            *_ahead(full, relative, _witnesses(metrics), "oracle/"),
            Claim(ahead=relative, behind=neither, key="oracle/fsd", paper="FID 5.44 < 7.15"),
            *_ahead(relative, neither, _witnesses(metrics), "oracle/"),
        ),
        picture="oracle",
        sort=TOKENIZER_SORT,
        notes=_distances(metrics),
    )


def table4(others: int = 9, metrics: Sequence[str] = ()) -> Table:
    """Make Table 4: the perspectives of MP-S2S.

    Args:
        others: captions that the true one is compared with.
        metrics: of `images.EXTRAS`, to be shown as well.
    """
    labels = {
        "text": "text",
        "text-tokens": "text + tokens (no pixels)",
        "text-pixels": "text + pixels (no tokens)",
        "pixels-tokens": "pixels + tokens (no text)",
        "all": "all three",
        "df-vqgan": "all three, with DF-VQGAN",
        "df-vqgan-text-pixels": "text + pixels (no tokens), with DF-VQGAN",
    }
    rows = [Row(name=name, label=label, paper=paper.TABLE4.get(name, {})) for name, label in labels.items()]
    claims = []
    for name in ("text", "text-tokens", "text-pixels", "pixels-tokens"):
        gain = f"FID {paper.TABLE4[name]['fsd'] - paper.TABLE4['all']['fsd']:+.1f}"
        claims.append(Claim(ahead="all", behind=name, key="bits", same_tokenizer=True, paper=gain))
    claims.append(Claim(ahead="df-vqgan", behind="df-vqgan-text-pixels", key="bits", same_tokenizer=True))
    claims += [Claim(ahead=name, key="swap_gain", above=0) for name in ("all", "df-vqgan")]
    return Table(
        name="table4",
        title="Table 4: the perspectives of MP-S2S, and Fig. 6",
        kind="stage2",
        columns=(*_likelihood(others), *_images(metrics, ("fsd",))),
        rows=rows,
        claims=[
            *claims,
            Claim(ahead="df-vqgan", behind="all", key="fsd", paper="FID 11.0 < 26.2"),
            *_ahead("df-vqgan", "all", _witnesses(metrics)),
        ],
        sort=IMAGE_SORT,
        notes=(
            *_distances(metrics),
            "Bits compare rows of the same tokenizer: the first five rows, and the last two.",
            "The decoder's pointer to neighbouring tokens is a part of the tokens: without them there is none.",
            "Known pixels are pasted over every result.",
            BLEND,
        ),
    )


def ratios(others: int = 9, metrics: Sequence[str] = ()) -> Table:
    """Make the sweep of the holes of stage 2's training (footnote 6); arguments as for `table4`."""
    rows = [Row(name=f"ratio-{low}-{high}", label=f"{low} to {high} %") for low, high in RATIOS]
    less, chosen, more = (row.name for row in rows)
    claims: list[Claim] = []
    for other in (less, more):
        claims += _ahead(chosen, other, ("bits",), same_tokenizer=True)
        claims += _ahead(chosen, other, ("fsd", *_witnesses(metrics)))
    return Table(
        name="ratios",
        title="Footnote 6: share of the photo that is hole in stage 2's training",
        kind="stage2",
        columns=(*_likelihood(others), *_images(metrics, ())),
        rows=rows,
        claims=claims,
        sort=IMAGE_SORT,
        notes=(
            *_distances(metrics),
            BLEND,
            "The paper chose 40 to 60 % and printed no figures: the claims are that this is ahead of the other two.",
        ),
    )
