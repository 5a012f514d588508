"""Fixed networks that read photos: maps for distances of pairs, vectors for distances of sets.

Legend: M photos of one picture (the original first), H W photo, C_l H_l W_l map l, F features.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.metrics import Regions, perceptual_distance, weighted_mean
from nuwa_lip.models.perceptual import Features, SqueezeNetFeatures, VGG16Features, vgg16
from nuwa_lip.models.projected import EfficientNetLite0

SQUEEZENET_SIDE, RANDOM_SIDE, EFFICIENTNET_SIDE = 227, 128, 224
RESIZE = {
    "squeezenet": "227 x 227, bicubic, antialiased",
    "random": "128 x 128, bicubic, antialiased",
    "efficientnet": "224 x 224, bicubic, antialiased",
    "inception": "299 x 299, bilinear as in TensorFlow 1",
    "clip": "as the CLIP's own preprocessor",
}
"""How each network's vectors come from photos; the maps of LPIPS come from photos at their own size."""


class RandomFeatures(nn.Module):
    """A convolutional network with random weights, which no model was trained with.

    Five convolutions of 3 x 3, stride 2, padding 1, no bias, with ReLU: 3 → 32 → 64 → 128 → 128 → 128 channels.
    Weights are drawn from N(0, 2 / inputs) by NumPy's RandomState(0), whose stream is the same in every version.
    The filters of the first layer are freed of their mean over space and enlarged 4 times: so the network sees
    structure, which distances of sets are for, and its features are of the order of 1.
    """

    CHANNELS = (3, 32, 64, 128, 128, 128)

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        draw = np.random.RandomState(seed)
        kernels = []
        for before, after in zip(self.CHANNELS, self.CHANNELS[1:], strict=False):
            kernel = draw.standard_normal((after, before, 3, 3)) * np.sqrt(2 / (9 * before))
            kernels.append(torch.from_numpy(kernel).float())
        kernels[0] = 4 * (kernels[0] - kernels[0].mean((2, 3), keepdim=True))
        self.kernels = nn.ParameterList(nn.Parameter(kernel, requires_grad=False) for kernel in kernels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute five maps of images [B, 3, 128, 128] in [-1, 1]."""
        x, maps = images, []
        for kernel in self.kernels:
            x = F.relu(F.conv2d(x, kernel, stride=2, padding=1))
            maps.append(x)
        return maps


def load_inception(state: Mapping[str, Tensor]) -> nn.Module:
    """Load torch-fidelity's Inception v3, which gives the 2048 features of FID and KID for photos of 8-bit values.

    Raises:
        InputError: torch-fidelity is not installed, or the weights are others.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise InputError("--metrics fid and kid need torch-fidelity: pip install 'nuwa-lip[evaluate]'") from None
    # it would unpickle whatever file it is given, so it gets a copy of tensors that were read safely before
    copy = io.BytesIO()
    torch.save(dict(state), copy)
    copy.seek(0)
    try:
        return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=copy)
    except RuntimeError as error:
        raise InputError("these are not the weights of FID's Inception v3: " + str(error).splitlines()[-1]) from None


def load_efficientnet(state: Mapping[str, Tensor]) -> EfficientNetLite0:
    """Load EfficientNet-Lite0, whose 112 features of a photo FED compares.

    Raises:
        InputError: the weights are others.
    """
    try:
        return EfficientNetLite0(state)
    except (KeyError, RuntimeError):
        raise InputError(
            "--lite does not hold the weights of EfficientNet-Lite0 in the names of timm (tf_efficientnet_lite0)"
        ) from None


class Lpips(nn.Module):
    """VGG-16 with the learned weights of its channels (Zhang et al. 2018, version 0.1).

    Args:
        state: weights of VGG-16, as torchvision names them.
        heads: weights [channels] of each of the five maps.

    Raises:
        InputError: the weights are not VGG-16's.
    """

    def __init__(self, state: Mapping[str, Tensor], heads: Sequence[Tensor]) -> None:
        super().__init__()
        try:
            self.network: VGG16Features = vgg16(state)
        except RuntimeError:
            raise InputError("--vgg does not hold the weights of VGG-16") from None
        self.heads = list(heads)


@dataclass(frozen=True)
class Networks:
    """The networks of one measurement; SqueezeNet and the random one are always there."""

    squeezenet: SqueezeNetFeatures
    """For FSD and LPIPS-squeeze."""
    _: KW_ONLY
    lpips: Lpips | None = None
    efficientnet: EfficientNetLite0 | None = None
    """For `fed`."""
    inception: nn.Module | None = None
    """For `fid` and `kid`."""
    clip: str | Path | None = None
    """Model for `clip_score`, a folder or a hub id."""
    random: RandomFeatures = field(default_factory=RandomFeatures)

    @torch.inference_mode()
    def distances(self, photos: Sequence[np.ndarray], regions: Regions) -> list[dict[str, float | None]]:
        """Compute the perceptual distances of every other photo to the first, from one pass of each network.

        Args:
            photos: M of uint8 [H, W, 3], the original first.
            regions: see `metrics.Regions`.

        Returns:
            of each of the M - 1: `lpips_squeeze` and, with VGG-16, `lpips`, each with the regions' endings.
        """
        batch = to_batch(photos)
        rows: list[dict[str, float | None]] = [{} for _ in photos[1:]]
        networks: list[tuple[str, Features, Sequence[Tensor] | None]] = [("lpips_squeeze", self.squeezenet, None)]
        if self.lpips is not None:
            networks.append(("lpips", self.lpips.network, self.lpips.heads))
        for name, network, heads in networks:
            truth, *others = zip(*network(batch), strict=True)  # of each photo its maps [C_l, H_l, W_l]
            for row, maps in zip(rows, others, strict=True):
                found = perceptual_distance(maps, truth, regions, heads)
                row |= {f"{name}{ending}": value for ending, value in found.items()}
        return rows

    @torch.inference_mode()
    def vectors(self, photos: Sequence[np.ndarray], mask: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the features that distances of sets compare: name → float32 [M, F].

        `_hole`: averaged over the hole's places only.
        """
        batch = to_batch(photos)
        last = {"squeezenet": self.squeezenet(_resize(batch, SQUEEZENET_SIDE))[-1]}
        if self.efficientnet is not None:
            last["efficientnet"] = self.efficientnet(_resize(batch, EFFICIENTNET_SIDE))[-1]
        maps = self.random(_resize(batch, RANDOM_SIDE))
        found = {}
        for ending, region in (("", None), ("_hole", mask)):
            for name, features in last.items():
                found[f"{name}{ending}"] = torch.stack([weighted_mean(x, region) for x in features])
            of_maps = [torch.stack([weighted_mean(x, region) for x in level]) for level in maps]
            found[f"random{ending}"] = torch.cat(of_maps, 1)
        if self.inception is not None:
            found["inception"] = self.inception(torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2))[0]
        return {name: value.float().numpy() for name, value in found.items()}


def to_batch(photos: Sequence[np.ndarray]) -> Tensor:
    """Stack photos, uint8 [H, W, 3] each → float32 [M, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _resize(batch: Tensor, side: int) -> Tensor:
    return F.interpolate(batch, (side, side), mode="bicubic", antialias=True)
