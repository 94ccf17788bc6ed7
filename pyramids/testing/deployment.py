"""Clauses on the ways out of eager mode: `torch.compile`, `torch.export`, ONNX."""

import importlib.util
import warnings
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor, nn
from torch.export import Dim

from .subject import as_maps, expect_close, fresh, infer, make_maps, other_sizes, usual_sizes

GRAPH = 1e-4  # float32 sums taken in another order
ONNX = 1e-3  # and by another library


def compiles(neck: nn.Module, examples: int) -> None:
    """`torch.compile(fullgraph=True)` gives the same numbers, at another size and in training too."""
    subject = fresh(neck)
    torch.compiler.reset()  # earlier necks of the same class count against the limit of recompilations
    compiled: Any = torch.compile(subject, fullgraph=True, backend="aot_eager")
    for i, sizes in enumerate((usual_sizes(subject), other_sizes(subject))):
        maps = make_maps(subject, sizes, batch=i + 2)
        expect_close(infer(compiled, maps), infer(subject, maps), GRAPH, f"the compiled neck with input sizes {sizes}")
    maps = make_maps(subject, usual_sizes(subject), batch=2)
    subject.train()
    torch.compiler.reset()  # back to fixed sizes, which are traced faster
    torch.manual_seed(0)
    actual = as_maps(compiled(maps))
    torch.manual_seed(0)
    expect_close(actual, as_maps(subject(maps)), GRAPH, "the compiled neck in training")


def exports(neck: nn.Module, examples: int) -> None:
    """`torch.export` gives a program with the same numbers, of another batch and other sizes too."""
    subject = fresh(neck)
    maps = make_maps(subject, usual_sizes(subject), batch=2)
    program = torch.export.export(subject, (maps,), dynamic_shapes=_any_size(maps)).module()
    for batch, sizes in ((2, usual_sizes(subject)), (3, other_sizes(subject))):
        maps = make_maps(subject, sizes, batch)
        what = f"the exported neck for a batch of {batch} with input sizes {sizes}"
        expect_close(infer(program, maps), infer(subject, maps), GRAPH, what)


def onnx(neck: nn.Module, examples: int) -> None:
    """An ONNX file, run by onnxruntime, gives the same numbers, of another batch and other sizes too."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise SkipTest(f"{', '.join(missing)} not installed (extra `export`)")
    import onnxruntime

    subject = fresh(neck).cpu()
    maps = make_maps(subject, usual_sizes(subject), batch=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            subject, (maps,), dynamo=True, dynamic_shapes=_any_size(maps), verbose=False, opset_version=18
        )
    model = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for batch, sizes in ((2, usual_sizes(subject)), (3, other_sizes(subject))):
        maps = make_maps(subject, sizes, batch)
        feed = {node.name: x.numpy() for node, x in zip(session.get_inputs(), maps, strict=True)}
        actual = [torch.from_numpy(x) for x in session.run(None, feed)]
        what = f"the ONNX file for a batch of {batch} with input sizes {sizes}"
        expect_close(actual, infer(subject, maps), ONNX, what)


def _any_size(maps: list[Tensor]) -> Any:
    return ([{0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO} for _ in maps],)
