# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Peak of the resident memory of ``enhance``, and its time, for square frames.

A process has one peak only, so each frame is enhanced by a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

STATUS = Path("/proc/self/status")


def resident(key: str) -> float:
    """
    Return the resident memory of this process in MiB.

    Parameters
    ----------
    key : {"VmRSS", "VmHWM"}
        Whether it is wanted as it is now or at its highest. Systems without /proc know the latter only.
    """
    if STATUS.exists():
        fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        return int(fields[key].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def measure(size: int, args: argparse.Namespace) -> dict:
    """
    Enhance a frame of noise in this process.

    Parameters
    ----------
    size : int
        The pixels on a side.

    args : argparse.Namespace
        The command line.

    Returns
    -------
    result : dict
        Memory in MiB and seconds.
    """
    interpreter = resident("VmRSS")
    import numpy as np
    import torch
    from astropy.nddata import CCDData, StdDevUncertainty

    from astro_ddpm import enhance, zoo

    if args.threads:
        torch.set_num_threads(args.threads)
    model = zoo.load(args.model)
    data = np.random.default_rng(1).standard_normal((size, size), dtype=np.float32)
    ccd = CCDData(data, unit="adu", uncertainty=StdDevUncertainty(np.ones_like(data)))
    loaded = resident("VmRSS")
    options = {"n_samples": args.samples, "steps": args.steps, "seed": 1}
    options |= {"memory_limit": args.limit, "tile_size": args.tile}
    start, cpu = time.perf_counter(), time.process_time()
    enhance(ccd, model=model, keep_samples=args.keep, progress_bar=args.progress, **options)
    return {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "loaded": loaded - interpreter,
        "peak": resident("VmHWM") - interpreter,
    }


def parse(argv=None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[1024, 2048, 4096], help="pixels on a side (1024 2048 4096)"
    )
    parser.add_argument("--model", default="raunet", help="name or path of the model (raunet)")
    parser.add_argument("--samples", type=int, default=4, help="samples to draw, if the model draws any (4)")
    parser.add_argument("--steps", type=int, help="evaluations per sample (the model's)")
    parser.add_argument("--no-keep", dest="keep", action="store_false", help="do not keep the samples")
    parser.add_argument("--limit", help="memory limit of the networks, such as 1GB")
    parser.add_argument("--tile", type=int, help="width of the tiles")
    parser.add_argument("--threads", type=int, help="threads of PyTorch")
    parser.add_argument("--progress", action="store_true", help="show a progress bar")
    parser.add_argument("--one", action="store_true", help="measure one size in this process, print JSON")
    return parser.parse_args(argv)


def main(argv=None) -> None:
    """Measure every size in a process of its own and print a table."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv)
    if args.one:
        print(json.dumps(measure(args.sizes[0], args)))
        return
    print(f"{args.model}, samples: {args.samples}, steps: {args.steps}, memory above the interpreter")
    print(f"{'pixels':>12} {'before':>10} {'peak':>10} {'seconds':>9} {'CPU s':>9} {'CPU us / pixel':>15}")
    for size in args.sizes:
        command = [sys.executable, __file__, *argv, "--one", "--sizes", str(size)]
        result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        print(
            f"{f'{size} x {size}':>12} {result['loaded']:6.0f} MiB {result['peak']:6.0f} MiB "
            f"{result['seconds']:9.1f} {result['cpu']:9.1f} {1e6 * result['cpu'] / size**2:15.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
