"""Graphs of ONNX with the signatures of MI-GAN's whole pipeline and of LaMa: the hole becomes the known mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save_model


def _save(folder: Path, name: str, nodes: list[Any], inputs: list[Any], output: Any, **constants: Any) -> Path:
    weights = [numpy_helper.from_array(np.asarray(value, np.float32), key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model, full_check=True)
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, folder / f"{name}.onnx")
    return folder / f"{name}.onnx"


def _erase(known: str) -> list[Any]:
    """From `x` [1, 3, H, W] and a mask of ones where it is known: `y`, the mean of what is known in the hole."""
    return [
        helper.make_node("Mul", ["x", known], ["seen"]),
        helper.make_node("ReduceSum", ["seen", "axes"], ["sum"], keepdims=1),
        helper.make_node("ReduceSum", [known, "axes"], ["count"], keepdims=1),
        helper.make_node("Add", ["count", "one"], ["more"]),
        helper.make_node("Div", ["sum", "more"], ["mean"]),
        helper.make_node("Sub", ["one", known], ["unknown"]),
        helper.make_node("Mul", ["mean", "unknown"], ["filled"]),
        helper.make_node("Add", ["seen", "filled"], ["y"]),
    ]


def save_migan(folder: Path, side: int | str = "height") -> Path:
    """uint8 image [1, 3, H, W], mask [1, 1, H, W] of 0 in the hole → uint8 result."""
    image, mask, result = (
        helper.make_tensor_value_info(name, TensorProto.UINT8, ["batch", channels, side, side])
        for name, channels in (("image", 3), ("mask", 1), ("result", 3))
    )
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["m", "most"], ["known"]),
        *_erase("known"),
        helper.make_node("Cast", ["y"], ["result"], to=TensorProto.UINT8),
    ]
    return _with_axes(folder, "migan_pipeline_v2", nodes, [image, mask], result, one=1, most=255)


def save_lama(folder: Path, side: int = 16, scale: float = 255) -> Path:
    """float image [1, 3, S, S] from 0 to 1, mask [1, 1, S, S] of 1 in the hole → output, up to `scale`."""
    image, mask, output = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, side, side])
        for name, channels in (("image", 3), ("mask", 1), ("output", 3))
    )
    nodes = [
        helper.make_node("Identity", ["image"], ["x"]),
        helper.make_node("Sub", ["one", "mask"], ["known"]),
        *_erase("known"),
        helper.make_node("Mul", ["y", "scale"], ["output"]),
    ]
    return _with_axes(folder, "lama_fp32", nodes, [image, mask], output, one=1, scale=scale)


def _with_axes(folder: Path, name: str, nodes: list[Any], inputs: list[Any], output: Any, **constants: Any) -> Path:
    axes = helper.make_node("Constant", [], ["axes"], value_ints=[2, 3])
    return _save(folder, name, [axes, *nodes], inputs, output, **constants)
