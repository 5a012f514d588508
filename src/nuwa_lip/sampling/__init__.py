"""Sampling of the missing tokens: the loop over steps, how one token is drawn, and the settings of both."""

from nuwa_lip.sampling.loop import candidate_seeds, read_scores, sample
from nuwa_lip.sampling.settings import Sampling

__all__ = ["Sampling", "candidate_seeds", "read_scores", "sample"]
