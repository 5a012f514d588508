"""The paper's figures: NÜWA-LIP, CVPR 2023, Tables 1 to 4 (FID, Average distance, PSNR, LPIPS and CLIP score).

Keys of the figures are those of our own columns that stand beside them: our FSD beside the paper's FID, LPIPS-squeeze
beside its LPIPS. The two are of other networks and other photos: what may be compared is the order of the rows and the
ratio of two of them.
"""

from collections.abc import Mapping

SOURCE = "Ni et al., NÜWA-LIP: Language-guided Image Inpainting with Defect-free VQGAN, CVPR 2023"

Figures = Mapping[str, float]


def _table1(fid: float, psnr: float, lpips: float, clip: float) -> Figures:
    return {"fsd": fid, "psnr": psnr, "lpips_squeeze": lpips, "clip_score": clip}


TABLE1: Mapping[str, Mapping[str, Figures]] = {
    "MaskCOCO": {
        "glide": _table1(13.5, 17.25, 0.233, 28.99),
        "nuwa": _table1(21.4, 12.91, 0.435, 28.10),
        "nuwa-p": _table1(20.6, 14.39, 0.323, 28.64),
        "nuwa-lip": _table1(12.0, 17.35, 0.233, 29.39),
        "nuwa-lip-finetuned": _table1(10.5, 17.23, 0.231, 29.65),
    },
    "MaskFlickr": {
        "glide": _table1(51.9, 17.06, 0.225, 29.16),
        "nuwa": _table1(59.5, 13.44, 0.361, 29.29),
        "nuwa-p": _table1(54.2, 14.89, 0.295, 29.55),
        "nuwa-lip": _table1(42.5, 17.47, 0.220, 30.76),
    },
    "MaskVG": {
        "glide": _table1(9.0, 18.53, 0.210, 24.94),
        "nuwa": _table1(18.5, 14.04, 0.362, 25.14),
        "nuwa-p": _table1(17.7, 16.25, 0.301, 24.78),
        "nuwa-lip": _table1(8.5, 18.70, 0.209, 25.05),
    },
}


def _table2(reconstruction: float, oracle: float, distance: float) -> Figures:
    return {"reconstruction/fsd": reconstruction, "oracle/fsd": oracle, "distance": distance}


TABLE2: tuple[tuple[str, Mapping[str, Figures]], ...] = (
    ("16² tokens, 1024", {"vqgan": _table2(12.47, 16.30, 5.75), "df-vqgan": _table2(11.16, 5.56, 4.54)}),
    ("16² tokens, 12288", {"vqgan": _table2(5.48, 7.15, 9.77), "df-vqgan": _table2(5.16, 2.95, 4.31)}),
    ("32² tokens, 8192", {"vqgan": _table2(1.47, 2.04, 16.93), "df-vqgan": _table2(1.38, 0.80, 3.52)}),
)
"""By the three vocabularies: name in the paper, figures of each tokenizer."""

TABLE3: Mapping[str, Figures] = {
    "vqgan": {"oracle/fsd": 7.15},
    "relative": {"oracle/fsd": 5.44},
    "df-vqgan": {"oracle/fsd": 2.95},
}

TABLE4: Mapping[str, Figures] = {
    "text": {"fsd": 29.4},
    "text-tokens": {"fsd": 27.4},
    "text-pixels": {"fsd": 26.8},
    "pixels-tokens": {"fsd": 34.7},
    "all": {"fsd": 26.2},
    "df-vqgan": {"fsd": 11.0},
}


def benchmark_like(name: str) -> str:
    """Choose the paper's benchmark whose figures stand beside those on the benchmark `name`; MaskCOCO by default."""
    low = name.lower()
    if "flickr" in low:
        return "MaskFlickr"
    return "MaskVG" if "vg" in low or "genome" in low else "MaskCOCO"
