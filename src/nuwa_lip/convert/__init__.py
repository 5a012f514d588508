"""VQGAN weights of other projects, as a DF-VQGAN: diffusers, taming-transformers, LlamaGen, MAGVIT-v2, NÜWA-LIP.

All are the same network under other names. Names are translated to taming-transformers', sizes are read off
the tensors' shapes, and every weight must find its place.
"""

from nuwa_lip.convert.readers import from_diffusers_vqmodel, from_taming, load

__all__ = ["from_diffusers_vqmodel", "from_taming", "load"]
