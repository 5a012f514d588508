"""Faster forms of what `nuwa_lip.models` does, put on a model from outside; the exact and simple forms stay there.

`speed_up` is called wherever a model is loaded or built. What changes the weights' form or needs a compiler is called
by its own name: `quantise.quantise`, `kernels.compile_step`, `cuda_graphs.Graph`.
"""

from typing import TypeVar

from nuwa_lip.fast import attention, dfvqgan
from nuwa_lip.models import DFVQGAN, MPS2S

Model = TypeVar("Model", DFVQGAN, MPS2S)


def speed_up(model: Model) -> Model:
    """Put the forms for inference on a model, in place, and return it; a second call changes nothing.

    The model computes the same function: known outputs do not depend on the hole, and without a mask a DF-VQGAN stays
    the plain VQGAN to the last bit.

    Args:
        model: what is to run; it may be trained and saved as before, under the same names of its parameters.
    """
    if isinstance(model, DFVQGAN):
        dfvqgan.speed_up(model)
    elif isinstance(model, MPS2S):
        attention.speed_up(model)
    return model
