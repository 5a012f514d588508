"""Q of Eq. 13: fixed networks whose feature maps tell how alike two pictures look (LPIPS, Zhang et al. 2018).

SqueezeNet v1.1 is bundled; VGG-16 takes its place when its weights are at hand. Both give the maps after the
ReLUs that LPIPS reads. No learned weights on the channels: the distance is the unweighted one.

Legend: B batch, H W picture, C_l H_l W_l map l.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SQUEEZENET_MAPS = (1, 4, 7, 9, 10, 11, 12)
"""Layers of SqueezeNet that LPIPS reads: the first ReLU and the last fire module of each size, then each one."""
VGG16_CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


Net = TypeVar("Net", bound="Features")


class Fire(nn.Module):
    """SqueezeNet's module: squeeze by 1 x 1, expand by 1 x 1 and 3 x 3 side by side.

    Args:
        channels: of the input.
        squeeze: channels between.
        expand: channels of each of the two expansions.
    """

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Squeeze and expand [B, C, H, W] → [B, 2 · expand, H, W]."""
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


class Features(nn.Module):
    """A fixed network: pictures [B, 3, H, W] in [-1, 1] → the maps of the layers `maps`, each [B, C_l, H_l, W_l]."""

    def __init__(self, layers: Sequence[nn.Module], maps: Sequence[int]) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.maps = tuple(maps)
        self.eval().requires_grad_(False)

    def normalise(self, images: Tensor) -> Tensor:
        """Map pictures [B, 3, H, W] from [-1, 1] to what the network was trained on.

        Raises:
            NotImplementedError: the kind of network does not say how.
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the feature maps of images [B, 3, H, W] in [-1, 1], finest first, each [B, C_l, H_l, W_l]."""
        x, found = self.normalise(images), []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.maps:
                found.append(x)
        return found


class SqueezeNetFeatures(Features):
    """SqueezeNet v1.1 as its authors trained it: BGR, 0 to 255, less the mean. Sides of 17 pixels and more."""

    def __init__(self) -> None:
        def pool() -> nn.Module:
            return nn.MaxPool2d(3, stride=2, ceil_mode=True)

        layers = [nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), pool(), Fire(64, 16, 64), Fire(128, 16, 64), pool()]
        layers += [Fire(128, 32, 128), Fire(256, 32, 128), pool(), Fire(256, 48, 192), Fire(384, 48, 192)]
        layers += [Fire(384, 64, 256), Fire(512, 64, 256)]
        super().__init__(layers, SQUEEZENET_MAPS)

    def normalise(self, images: Tensor) -> Tensor:
        """Scale images from [-1, 1] to what Caffe's SqueezeNet expects: BGR, 0 to 255, less the mean."""
        mean = images.new_tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)
        return (images.flip(1) + 1) * 127.5 - mean


class VGG16Features(Features):
    """VGG-16 as torchvision trained it: the last ReLU of each size."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        maps, channels = [], 3
        for block in VGG16_CHANNELS:
            for width in block:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            maps.append(len(layers) - 1)
            layers.append(nn.MaxPool2d(2))
        super().__init__(layers[:-1], maps)

    def normalise(self, images: Tensor) -> Tensor:
        """Scale images from [-1, 1] to what torchvision's networks expect."""
        mean = images.new_tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        deviation = images.new_tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        return ((images + 1) / 2 - mean) / deviation


def squeezenet(state: Mapping[str, Tensor]) -> SqueezeNetFeatures:
    """Load SqueezeNet from weights of torchvision's names, in any precision; the classifier's are left out."""
    return _load(SqueezeNetFeatures(), state)


def vgg16(state: Mapping[str, Tensor]) -> VGG16Features:
    """Load VGG-16 from weights of torchvision's names, in any precision; the classifier's are left out."""
    return _load(VGG16Features(), state)


def _load(net: Net, state: Mapping[str, Tensor]) -> Net:
    net.load_state_dict({name: value for name, value in state.items() if name.startswith("features.")})
    return net


def lpips(features: Features, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """Average squared differences of channel-normalised features over the maps → [B].

    In each map features have unit length at every place; squared differences are summed over channels and averaged
    over places.

    Args:
        features: the network.
        a, b: [B, 3, H, W] in [-1, 1].
        mask: bool [B, 1, H, W]: average over the hole (True) only, each place by the share of it in the hole.
    """
    distances = []
    for x, y in zip(features(a), features(b), strict=True):
        place = (_unit(x) - _unit(y)).square().sum(1, keepdim=True)  # [B, 1, H_l, W_l]
        if mask is None:
            distances.append(place.mean((1, 2, 3)))
        else:
            weight = F.interpolate(mask.float(), place.shape[2:], mode="area")
            distances.append((place * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1e-12))
    return torch.stack(distances).mean(0)


def _unit(x: Tensor) -> Tensor:
    """Scale every place's features to unit length, in float32."""
    x = x.float()
    return x * (x.square().sum(1, keepdim=True) + 1e-10).rsqrt()
