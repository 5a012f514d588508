"""L_G of Eq. 13 in VQGAN's practice: a PatchGAN, its hinge losses, and the weight that keeps it in proportion."""

import torch.nn.functional as F
from torch import Tensor, nn


class PatchGAN(nn.Module):
    """D: judges overlapping patches of a picture.

    Group norm instead of batch norm: a picture is judged alone, so that accumulated gradients equal the big
    batch's.

    Args:
        filters: channels of the first layer; they double up to eightfold.
        layers: halvings between the first one and the last two layers (3: patches of 70 pixels).
        groups: of the group norms.
    """

    def __init__(self, filters: int = 64, layers: int = 3, groups: int = 16) -> None:
        super().__init__()
        body: list[nn.Module] = [nn.Conv2d(3, filters, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        channels = filters
        for n in range(1, layers + 1):
            width = filters * min(2**n, 8)
            stride = 2 if n < layers else 1
            body += [nn.Conv2d(channels, width, 4, stride=stride, padding=1, bias=False)]
            body += [nn.GroupNorm(groups, width), nn.LeakyReLU(0.2)]
            channels = width
        self.body = nn.Sequential(*body, nn.Conv2d(channels, 1, 4, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Judge images [B, 3, H, W] → [B, 1, H_D, W_D], high where a patch looks real."""
        return self.body(images)


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Compute the hinge loss of D's judgements, [B, 1, H_D, W_D] each, of real and of decoded pictures."""
    return (F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()) / 2


def generator_loss(fake: Tensor) -> Tensor:
    """Compute what the decoder is to lower: D's mean judgement of its pictures, with the sign turned."""
    return -fake.float().mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, largest: float = 1e4) -> Tensor:
    """Divide the size of the reconstruction loss's gradient at the last layer by that of the adversarial loss.

    Args:
        reconstruction, adversarial: gradients of the two losses at the decoder's last layer, of the whole batch.
        largest: bound of the weight.
    """
    weight = reconstruction.float().norm() / (adversarial.float().norm() + 1e-4)
    return weight.clamp(0, largest).detach()


def mps2s_loss(logits: Tensor, targets: Tensor, real: Tensor) -> Tensor:
    """Compute Eq. 15 as a mean: nats for each defective token, averaged over a sample's tokens, then over the batch.

    The second mean makes the loss of a batch the mean of the losses of its parts, whatever their K.

    Args:
        logits: float [B, K, V].
        targets: int64 [B, K] (`target_tokens`).
        real: bool [B, K], which rows count.
    """
    nats = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none") * real
    return (nats.sum(1) / real.sum(1).clamp(min=1)).mean()
