"""The networks: pure modules without I/O, devices or training code."""

from nuwa_lip.models.dfvqgan import DFVQGAN
from nuwa_lip.models.dfvqgan_config import DFVQGANConfig
from nuwa_lip.models.mps2s import MPS2S
from nuwa_lip.models.mps2s_config import MPS2SConfig
from nuwa_lip.models.perspectives import Coarse

__all__ = ["Coarse", "DFVQGAN", "DFVQGANConfig", "MPS2S", "MPS2SConfig"]
