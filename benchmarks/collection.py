# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Frames per minute of ``enhance_collection`` with different numbers of Dask workers.

The clusters live side by side and take turns, round by round and in alternating order, so that other work on
the machine slows all of them alike. Each worker has one thread and has loaded the model before time is taken.
Needs the extra ``dask``.
"""

import argparse
import json
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty
from distributed import Client, LocalCluster

from astro_ddpm import enhance, zoo
from astro_ddpm.pipeline import enhance_collection
from astro_ddpm.utils import atomic_path


def write_frames(folder: Path, n: int, size: int) -> list[Path]:
    """Write frames of white noise of unit variance that carry their uncertainty."""
    paths = [folder / f"frame{i:04}.fits" for i in range(n)]
    for i, path in enumerate(paths):
        data = np.random.default_rng(i).standard_normal((size, size), dtype=np.float32)
        CCDData(data, unit="adu", uncertainty=StdDevUncertainty(np.ones_like(data))).write(path)
    return paths


def warm_up(path: Path, options: dict) -> None:
    """Load the model and enhance a frame in this process."""
    enhance(path, **options)


def start_client(stack: ExitStack, workers: int, path: Path, options: dict) -> Client:
    """Start a cluster of worker processes that have loaded the model."""
    cluster = stack.enter_context(
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0")
    )
    client = stack.enter_context(Client(cluster))
    client.wait_for_workers(workers, timeout=120)
    client.run(warm_up, path, options)
    return client


def measure(client: Client, paths: list[Path], options: dict) -> float:
    """Enhance the frames into a folder of their own and return frames per minute."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        manifest = enhance_collection(paths, folder, client=client, **options)
        seconds = time.perf_counter() - start
    failed = manifest[manifest["status"] != "done"]
    if len(failed):
        msg = f"{len(failed)} frames failed, the first of them: {failed['reason'][0]}"
        raise RuntimeError(msg)
    return 60 * len(paths) / seconds


def parse(argv=None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="workers of a cluster (1 2)")
    parser.add_argument("--frames", type=int, default=24, help="frames of a round (24)")
    parser.add_argument("--size", type=int, default=512, help="pixels on a side of a frame (512)")
    parser.add_argument("--model", default="raunet", help="name or path of the model (raunet)")
    parser.add_argument("--samples", type=int, default=4, help="samples to draw, if the model does (4)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (5)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write all numbers there")
    args = parser.parse_args(argv)
    if args.json and args.json.exists():
        parser.error(f"argument --json: {args.json} exists")
    return args


def main(argv=None) -> None:
    """Measure, print the table, write the numbers."""
    args = parse(argv)
    options = {"model": args.model, "n_samples": args.samples, "seed": 1, "device": "cpu"}
    rates = np.empty((len(args.workers), args.repeats))
    with ExitStack() as stack:
        paths = write_frames(Path(stack.enter_context(tempfile.TemporaryDirectory())), args.frames, args.size)
        clients = [start_client(stack, n, paths[0], options) for n in args.workers]
        for i in range(args.repeats):
            for j in range(len(clients))[:: 1 - 2 * (i % 2)]:
                rates[j, i] = measure(clients[j], paths, options)
    print(
        f"{args.frames} frames of {args.size}x{args.size} pixels, {zoo.load(args.model).name}, "
        f"{os.cpu_count()} cores, {args.repeats} rounds: medians and quartiles"
    )
    print(f"{'workers':>7}{'frames per minute':>32}{'ratio':>26}")
    for workers, rate, ratio in zip(args.workers, rates, rates / rates[0], strict=True):
        (low, median, high), (least, middle, most) = (
            np.quantile(x, [0.25, 0.5, 0.75]) for x in (rate, ratio)
        )
        print(
            f"{workers:>7}{f'{median:.1f} ({low:.1f} to {high:.1f})':>32}"
            f"{f'{middle:.2f} ({least:.2f} to {most:.2f})':>26}"
        )
    if args.json:
        settings = {name: value for name, value in vars(args).items() if name != "json"}
        with atomic_path(args.json) as partial:
            partial.write_text(json.dumps({**settings, "frames_per_minute": rates.tolist()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
