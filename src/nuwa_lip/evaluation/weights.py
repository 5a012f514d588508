"""The networks that figures need, and where their weights come from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

from nuwa_lip import hub
from nuwa_lip.assets import asset
from nuwa_lip.evaluation.features import Lpips, Networks, load_efficientnet, load_inception
from nuwa_lip.evaluation.images import CLIP
from nuwa_lip.models.perceptual import squeezenet
from nuwa_lip.published import EFFICIENTNET, INCEPTION, VGG16, find_weights, lpips_heads, read_weights
from nuwa_lip.sampling.clip import load_clip

SQUEEZENET = "squeezenet/squeezenet1_1_caffe_fp16.safetensors"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where the weights of the networks that figures need come from."""

    inception: Path | None = None
    vgg: Path | None = None
    lite: Path | None = None
    clip: str = "openai/clip-vit-base-patch32"
    download: bool = False

    def networks(self, extras: Sequence[str]) -> Networks:
        """Load the networks that the figures `extras` need.

        Raises:
            InputError: weights or a library are missing, with the file to fetch or the extra to install.
        """
        lpips, efficientnet, inception, clip = None, None, None, None
        if "lpips" in extras:
            heads = lpips_heads()
            lpips = Lpips(read_weights(find_weights(VGG16, self.vgg, download=self.download)), heads)
        if "fed" in extras:
            efficientnet = load_efficientnet(read_weights(self._lite()))
        if "fid" in extras or "kid" in extras:
            path = find_weights(INCEPTION, self.inception, download=self.download)
            inception = load_inception(read_weights(path))
        if {*CLIP} & set(extras):
            clip = str(hub.at_hand(self.clip) or hub.fetch(self.clip, hub.MODEL_FILES)) if self.download else self.clip
            load_clip(clip, "--metrics clip")  # fail early if it is missing
        own = squeezenet(load_file(asset(SQUEEZENET)))
        return Networks(own, lpips=lpips, efficientnet=efficientnet, inception=inception, clip=clip)

    def describe(self, extras: Sequence[str]) -> dict[str, str]:
        """Identify the weights of EfficientNet-Lite0 by their content, where `extras` needs them.

        Raises:
            InputError: they are missing, with the file to fetch.
        """
        if "fed" not in extras:
            return {}
        with self._lite().open("rb") as file:
            return {"lite": hashlib.file_digest(file, "sha256").hexdigest()[:32]}

    def _lite(self) -> Path:
        return find_weights(EFFICIENTNET, self.lite, download=self.download)
