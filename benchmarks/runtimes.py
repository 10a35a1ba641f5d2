# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Time the RAUNet in other runtimes, and how far their results are from those of PyTorch in float32.

    python -m pip install onnx onnxscript onnxruntime openvino
    python benchmarks/runtimes.py --size 128 320

What is not installed is left out. All run on as many threads as PyTorch, one after the other.
"""

import argparse
import copy
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from astro_ddpm import zoo


def make_input(size):
    """Return a whitened image of noise with a galaxy of 30 sigma, and its validity."""
    y, x = np.mgrid[:size, :size] - size / 2
    z = np.random.default_rng(0).standard_normal((size, size)) + 30 * np.exp(-(x**2 + y**2) / 80)
    z = torch.from_numpy(z.astype(np.float32))[None, None]
    return z, torch.ones_like(z)


def with_autocast(network, planes):
    """Return a call in bfloat16."""

    def call():
        with torch.autocast("cpu", torch.bfloat16):
            return [plane.float() for plane in network(*planes)]

    return call


def with_onnxruntime(path, planes):
    """Return a call of ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    feed = {name: plane.numpy() for name, plane in zip(names, planes, strict=True)}
    return lambda: session.run(None, feed)


def with_openvino(path, planes, precision):
    """Return a call of OpenVINO in a precision."""
    import openvino

    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = openvino.Core().compile_model(path, "CPU", options).create_infer_request()
    arrays = [plane.numpy() for plane in planes]

    def call():
        request.infer(arrays)
        return [request.get_output_tensor(number).data.copy() for number in range(2)]

    return call


def make_calls(network, planes, folder):
    """Yield the name of each runtime and what calls it."""
    yield "PyTorch, float32", lambda: network(*planes)
    yield "PyTorch, bfloat16", with_autocast(network, planes)
    compiled = torch.compile(copy.deepcopy(network), dynamic=False)
    yield "PyTorch, compiled", lambda: compiled(*planes)
    path = str(Path(folder) / "raunet.onnx")
    if find_spec("onnxscript"):
        with torch.enable_grad():  # without, an operator is traced that ONNX lacks
            torch.onnx.export(network, planes, path, dynamo=True, external_data=False, verbose=False)
        if find_spec("onnxruntime"):
            yield "ONNX Runtime, float32", with_onnxruntime(path, planes)
        if find_spec("openvino"):
            yield "OpenVINO, float32", with_openvino(path, planes, "f32")
            yield "OpenVINO, bfloat16", with_openvino(path, planes, "bf16")


def measure(call, repeats):
    """Return the result and the median time in milliseconds, after two calls that do not count."""
    call()
    result, times = call(), []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return [np.asarray(plane, np.float32) for plane in result], 1e3 * np.median(times)


@torch.no_grad()
def main():
    """Print a line for each runtime and size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="raunet")
    parser.add_argument("--size", type=int, nargs="+", default=[128, 320])
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    network = zoo.load(args.model).regressor.eval()
    for size in args.size:
        reference = None
        with tempfile.TemporaryDirectory() as folder:
            for name, call in make_calls(network, make_input(size), folder):
                result, milliseconds = measure(call, args.repeats)
                reference = reference or result
                error = max(np.abs(one - other).max() for one, other in zip(result, reference, strict=True))
                print(f"{size} x {size}, {name}: {milliseconds:.1f} ms, differs by up to {error:.1e} sigma")


if __name__ == "__main__":
    main()
