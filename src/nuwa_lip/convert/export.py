"""Writes a model's functions (`graphs`) as files that other programs run: ONNX, or `torch.export`'s .pt2.

    encode.onnx  decode.onnx  memory.onnx  step.onnx    (.pt2; after stage 1 the first two only)
    config.json  tokenizer.json  README.md              as in the model folder
    functions.json                                      names and shapes of what each function takes and gives

The number of photos is free, all other sizes are the model's. A third form is for users of diffusers: the model folder
with a model_index.json, and a pipeline.py that they name as `custom_pipeline` (`diffusers_pipeline`).
"""

import contextlib
import io
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch.export import Dim, ExportedProgram

from nuwa_lip.convert.graphs import Part, parts_of
from nuwa_lip.disk import write_json, written_folder
from nuwa_lip.errors import InputError
from nuwa_lip.hub import load_model, resolve

Format = Literal["onnx", "torch", "diffusers"]
ENDINGS = {"onnx": "onnx", "torch": "pt2"}
OPSET = 20
LARGEST = 1.5e9
"""Bytes of weights from which they stand in a file beside: ONNX's own may hold 2 GB."""
MODEL_INDEX = {"_class_name": "NuwaLipInpaintPipeline", "_diffusers_version": "0.30.0"}
"""It lists no parts: diffusers then loads none, and the pipeline loads them itself."""
KEPT = ("config.json", "tokenizer.json", "README.md")


def export(name: str | Path, out: Path, kind: Format = "onnx") -> list[str]:
    """Write the functions of a model into a folder that must not exist yet → their files' names.

    Args:
        name: bundled name, local folder or hub id; stage 1 is enough, but not for diffusers.
        out: the folder.
        kind: "onnx", "torch" or "diffusers".

    Raises:
        InputError: there is no such model, a package is missing, or `out` cannot be made.
    """
    if kind == "diffusers":
        return _for_diffusers(name, out)
    if kind == "onnx":
        _need_onnx()
    model, folder = load_model(name, need_mps2s=False), resolve(name)
    files, described = [], {}
    with written_folder(out, replace=False) as part:
        for function in parts_of(model.dfvqgan, model.mps2s):
            program = trace(function)
            files.append(f"{function.name}.{ENDINGS[kind]}")
            described[function.name] = _described(function)
            if kind == "onnx":
                _write_onnx(function, program, part / files[-1])
            else:
                torch.export.save(program, part / files[-1])
        for kept in KEPT:
            if (folder / kept).is_file():
                shutil.copyfile(folder / kept, part / kept)
        write_json(part / "functions.json", described, indent=1)
    return files


def _for_diffusers(name: str | Path, out: Path) -> list[str]:
    """Copy a model folder, with what diffusers looks for beside it."""
    load_model(name)  # refuses what is no whole model
    folder = resolve(name)
    with written_folder(out, replace=False) as part:
        for path in sorted(folder.iterdir()):
            if path.is_file():
                shutil.copyfile(path, part / path.name)
        shutil.copyfile(Path(__file__).with_name("diffusers_pipeline.py"), part / "pipeline.py")
        write_json(part / "model_index.json", MODEL_INDEX, indent=1)
    return ["model_index.json", "pipeline.py"]


def trace(part: Part) -> ExportedProgram:
    """Follow a function with its example, for any number of photos."""
    batch, axes = Dim("batch", min=1), {name: part.batch_axes.get(name, 0) for name in part.inputs}
    shapes = tuple({} if axis is None else {axis: batch} for axis in axes.values())
    with _quiet():
        return torch.export.export(part.module, tuple(part.inputs.values()), dynamic_shapes=(shapes,), strict=False)


def _write_onnx(part: Part, program: ExportedProgram, path: Path) -> None:
    size = sum(weight.nbytes for weight in part.module.state_dict().values())
    with _quiet():
        torch.onnx.export(
            program,
            (),
            path,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            opset_version=OPSET,
            external_data=size > LARGEST,
            dynamo=True,
            verbose=False,
        )


def _described(part: Part) -> dict[str, Any]:
    """Name what a function takes and gives; "batch" stands for the number of photos."""

    def shape(name: str, value: torch.Tensor) -> dict[str, Any]:
        axis = part.batch_axes.get(name, 0)
        sizes: list[int | str] = ["batch" if i == axis else n for i, n in enumerate(value.shape)]
        return {"name": name, "type": str(value.dtype).removeprefix("torch."), "shape": sizes}

    with torch.no_grad():
        made = part.module(*part.inputs.values())
    outputs = zip(part.outputs, made if isinstance(made, tuple) else (made,), strict=True)
    return {
        "inputs": [shape(name, value) for name, value in part.inputs.items()],
        "outputs": [shape(name, value) for name, value in outputs],
    }


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"--format onnx needs {error.name}: pip install 'nuwa-lip[onnx]'") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' reports of their progress from standard output."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
