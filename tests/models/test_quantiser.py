"""The codebook against slow twins: nearest codes, losses, gradients, revival."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nuwa_lip.models import quantiser
from nuwa_lip.models.quantiser import Quantiser


def make(size: int = 12, dim: int = 5, normalise: bool = False) -> Quantiser:
    torch.manual_seed(0)
    made = Quantiser(size, dim, normalise)
    torch.nn.init.normal_(made.codebook)
    return made


def latents(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_tokens(made: Quantiser, z: Tensor) -> Tensor:
    codes = made.codebook.detach()
    tokens = torch.empty(z.shape[0], *z.shape[2:], dtype=torch.int64)
    for b, y, x in torch.cartesian_prod(*(torch.arange(n) for n in tokens.shape)).tolist():
        one = z[b, :, y, x]
        if made.normalise:
            one, codes = one / one.norm(), codes / codes.norm(dim=1, keepdim=True)
        tokens[b, y, x] = (codes - one).square().sum(1).argmin()
    return tokens


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("distances", [1, 30, 2**22])
def test_tokens_are_the_nearest_codes(normalise: bool, distances: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantiser, "DISTANCES", distances)
    made, z = make(normalise=normalise), latents(2, 5, 3, 4)
    tokens = made.tokens(z)
    assert tokens.dtype == torch.int64 and torch.equal(tokens, slow_tokens(made, z))


def test_a_code_is_its_own_nearest() -> None:
    for normalise in (False, True):
        made = make(normalise=normalise)
        tokens = torch.arange(12).view(1, 3, 4)
        assert torch.equal(made.tokens(made.lookup(tokens)), tokens)


def test_codes_on_the_sphere_have_length_1_and_ignore_the_latents_length() -> None:
    made, z = make(normalise=True), latents(2, 5, 3, 4)
    torch.testing.assert_close(made.lookup(made.tokens(z)).norm(dim=1), torch.ones(2, 3, 4))
    assert torch.equal(made.tokens(z), made.tokens(z * 7))


def test_gradients_go_straight_through() -> None:
    made, z = make(), latents(2, 5, 3, 4).requires_grad_()
    out, pull = made(z), latents(2, 5, 3, 4, seed=2)
    torch.testing.assert_close(out.codes, made.lookup(out.tokens))
    (out.codes * pull).sum().backward()
    assert torch.equal(z.grad, pull)
    assert made.codebook.grad is None


@pytest.mark.parametrize("normalise", [False, True])
def test_losses_are_equation_13(normalise: bool) -> None:
    made, z = make(normalise=normalise), latents(2, 5, 3, 4).requires_grad_()
    out = made(z)
    unit = F.normalize(z, dim=1) if normalise else z
    distance = (unit - made.lookup(out.tokens)).square().mean()
    torch.testing.assert_close(out.codebook_loss, distance)
    torch.testing.assert_close(out.commitment_loss, distance)
    # each pulls one side only
    assert torch.autograd.grad(out.codebook_loss, z, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(out.commitment_loss, made.codebook, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(out.codebook_loss, made.codebook, retain_graph=True)[0].any()
    assert torch.autograd.grad(out.commitment_loss, z)[0].any()


def test_tokens_are_found_in_float32_under_autocast() -> None:
    """Codes closer together than bf16 resolves are still told apart."""
    made = Quantiser(2, 1)
    made.codebook.data = torch.tensor([[100.0], [100.125]])
    z = torch.tensor([100.01, 100.12]).view(1, 1, 1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert made.tokens(z).flatten().tolist() == made(z).tokens.flatten().tolist() == [0, 1]


def test_revival_replaces_dead_codes_by_latents() -> None:
    made, z = make(), latents(2, 5, 3, 4)
    before = made.codebook.detach().clone()
    dead = torch.zeros(12, dtype=torch.bool)
    dead[[2, 7, 8]] = True
    made.revive(dead, z, torch.Generator().manual_seed(0))
    after = made.codebook.detach()
    assert torch.equal(after[~dead], before[~dead])
    pool = z.permute(0, 2, 3, 1).reshape(-1, 5)
    assert all((pool == code).all(1).any() for code in after[dead])
    again = make()
    again.revive(dead, z, torch.Generator().manual_seed(0))
    assert torch.equal(again.codebook, made.codebook)
