# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Peak of the resident memory of ``enhance`` on one square frame.

A process has one peak only, so each run measures one frame.
"""

import argparse
import resource
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


def main(argv=None) -> None:
    """Enhance a frame of noise, and print what memory that took."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--size", type=int, default=1024, help="pixels on a side (1024)")
    parser.add_argument("--model", default="ddpm", help="name or path of the model (ddpm)")
    parser.add_argument("--samples", type=int, default=1, help="samples to draw (1)")
    parser.add_argument("--steps", type=int, default=10, help="evaluations per sample (10)")
    parser.add_argument("--threads", type=int, help="threads of PyTorch")
    args = parser.parse_args(argv)

    interpreter = resident("VmRSS")
    import numpy as np
    import torch
    from astropy.nddata import CCDData, StdDevUncertainty

    from astro_ddpm import enhance, zoo

    if args.threads:
        torch.set_num_threads(args.threads)
    model = zoo.load(args.model)
    data = np.random.default_rng(1).standard_normal((args.size, args.size), dtype=np.float32)
    ccd = CCDData(data, unit="adu", uncertainty=StdDevUncertainty(np.ones_like(data)))
    loaded = resident("VmRSS")
    start = time.perf_counter()
    result = enhance(ccd, model=model, n_samples=args.samples, steps=args.steps, seed=1)
    seconds, peak = time.perf_counter() - start, resident("VmHWM")

    drawn = "" if result.samples is None else f", samples: {args.samples}, steps: {args.steps}"
    print(f"{args.model}, {args.size}x{args.size} pixels{drawn}")
    print(f"interpreter              {interpreter:8.0f} MiB")
    print(f"libraries, model, image  {loaded - interpreter:8.0f} MiB more")
    print(f"enhance, at its peak     {peak - loaded:8.0f} MiB more, in {seconds:.1f} s")


if __name__ == "__main__":
    main()
