# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Throughput of training and inference, beside other U-Nets of the same size and BM3D.

All contenders of a group run in one process and take turns, round by round and in alternating order. So
other work on the machine slows all of them alike, and the ratio of two times of one round means something
where the times themselves do not. ``README.rst`` tells what is measured.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from astropy.nddata import CCDData, StdDevUncertainty
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from astro_ddpm import enhance, zoo
from astro_ddpm.nn import RAUNet
from astro_ddpm.report import classics
from astro_ddpm.training import DDPMModule, RAUNetModule
from astro_ddpm.utils import atomic_path

STAMP = 64  # pixels on a side of the stamp of which samples are drawn
SAMPLES = 16
DEPTH = 0.2
GROUPS = ("train-raunet", "train-denoiser", "raunet", "ddpm", "frames", "import")
LARGE = 1024  # pixels on a side of a frame beyond which times are extrapolated
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = time.perf_counter


@dataclass(frozen=True)
class Contender:
    """
    Something to be timed.

    Parameters
    ----------
    name : str
        What the table calls it.

    measure : callable
        Does it once and returns the seconds that it took.

    parameters : int, optional
        The number of parameters of its network.
    """

    name: str
    measure: Callable[[], float]
    parameters: int | None = None


def timed(function: Callable[[], object]) -> Callable[[], float]:
    """Return a function that calls ``function`` and returns the seconds that this took."""

    def measure() -> float:
        start = clock()
        function()
        return clock() - start

    return measure


def count(network: nn.Module) -> int:
    """Return the number of parameters of a network."""
    return sum(p.numel() for p in network.parameters())


def closest(make: Callable[..., nn.Module], sizes, target: int) -> nn.Module:
    """
    Make a network of about a given number of parameters.

    Parameters
    ----------
    make : callable
        ``make(*size)`` returns a network.

    sizes : iterable of tuple
        The sizes to choose from.

    target : int
        The number of parameters that is wanted.

    Returns
    -------
    network : `torch.nn.Module`
        The network whose number of parameters is the nearest.
    """

    def miss(size) -> int:
        with torch.device("meta"):
            return abs(count(make(*size)) - target)

    return make(*min(sizes, key=miss))


def make_diffusers(target: int) -> nn.Module:
    """Return a ``UNet2DModel`` of one block per resolution, with attention at the coarsest."""
    from diffusers import UNet2DModel

    def make(width, coarsest):
        return UNet2DModel(
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(width, 2 * width, 3 * width, coarsest),
            down_block_types=("DownBlock2D",) * 3 + ("AttnDownBlock2D",),
            up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * 3,
            attention_head_dim=coarsest // 2,
            norm_num_groups=2,
        )

    sizes = [(w, c) for w in range(14, 25, 2) for c in range(4 * w - 4, 4 * w + 5, 2)]
    return closest(make, sizes, target).to(memory_format=torch.channels_last)


def make_lucidrains(target: int) -> nn.Module:
    """Return the ``Unet`` of denoising-diffusion-pytorch with four resolutions in the ratios of ours."""
    from denoising_diffusion_pytorch import Unet

    return closest(
        lambda dim: Unet(dim, channels=1, dim_mults=(1, 2, 3, 4)), [(d,) for d in range(10, 25)], target
    )


PEERS = {"diffusers": make_diffusers, "denoising-diffusion-pytorch": make_lucidrains}


def make_peers(target: int) -> dict[str, nn.Module]:
    """
    Make the other U-Nets that are installed.

    Parameters
    ----------
    target : int
        The number of parameters to come close to.

    Returns
    -------
    networks : dict
        Each is called as ``network(x, t)``.
    """
    networks = {}
    for name, make in PEERS.items():
        try:
            networks[name] = make(target)
        except ImportError as error:
            miss(name, error)
    return networks


def miss(name: str, error: ImportError) -> None:
    """Say that a contender is not there."""
    print(
        f"{name} is left out ({error}); python -m pip install -r {Path(__file__).parent}/requirements.txt",
        file=sys.stderr,
    )


def evaluate(network: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """Return the output of any of the peers."""
    y = network(x, t)
    return getattr(y, "sample", y)


def training_step(network: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], float]:
    """Return a measurement of one step: forward, loss, backward, AdamW."""
    network.train()
    trainable = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, 1e-4)

    def step():
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return timed(step)


def peer_steps(target: int, batch: dict[str, Tensor]) -> list[Contender]:
    """Return training steps of the peers: a squared error of the noise, the loss of Ho et al. (2020)."""
    x, t = batch["residual"], torch.arange(len(batch["residual"]))

    def contender(name, network):
        return Contender(
            name,
            training_step(network, lambda: (evaluate(network, x, t) - x).square().mean()),
            count(network),
        )

    return [contender(*item) for item in make_peers(target).items()]


def make_batch(n: int, size: int) -> dict[str, Tensor]:
    """Return a batch of white noise as the training modules take it."""
    generator = torch.Generator().manual_seed(1)
    z, residual = torch.randn(2, n, 1, size, size, generator=generator)
    return {"z": z, "valid": torch.ones_like(z), "residual": residual, "depth": torch.full((n,), DEPTH)}


def train_raunet(batch: dict[str, Tensor]) -> list[Contender]:
    """Return training steps of the RAUNet and of U-Nets of its size."""
    config = zoo.load("raunet").regressor.config | {"dropout": 0.0}
    module = RAUNetModule(**config)
    module.log_dict = lambda *_, **__: None  # there is no trainer to log to
    step = training_step(module, lambda: module.training_step(batch, 0))
    n = count(module.network)
    return [Contender("RAUNet", step, n), *peer_steps(n, batch)]


def train_denoiser(batch: dict[str, Tensor]) -> list[Contender]:
    """Return training steps of the denoiser, alone and behind its RAUNet, and of U-Nets of its size."""
    model = zoo.load("ddpm")
    config = model.denoiser.config
    raunet = RAUNet(**model.regressor.config)
    module = DDPMModule(raunet, tuple(config["channels"]), dropout=0.0, patch=config["patch"])
    network, denoiser = module.network, module.denoiser
    z, valid, residual, depth = (batch[key] for key in ("z", "valid", "residual", "depth"))
    with torch.no_grad():
        mean, std = module.raunet(z, valid)
    noise, sigma = torch.randn_like(z), torch.full((len(z),), 0.5)

    def loss():
        guide = network.encode(z, valid, mean, std)
        return denoiser.loss(residual, sigma, noise, mean, std, guide, depth)

    n = count(network)
    return [
        Contender("denoiser", training_step(module, loss), n),
        Contender("denoiser and RAUNet", training_step(module, lambda: module.loss(batch)), n),
        *peer_steps(n, batch),
    ]


def make_ccd(size: int) -> CCDData:
    """Return an image of white noise of unit variance that carries its uncertainty."""
    data = np.random.default_rng(1).standard_normal((size, size), dtype=np.float32)
    return CCDData(data, unit="adu", uncertainty=StdDevUncertainty(np.ones_like(data)))


def inference(function: Callable[[], object]) -> Callable[[], float]:
    """Return a measurement of a function that needs no gradients."""
    return timed(torch.inference_mode()(function))


def infer_raunet(size: int, threads: int) -> list[Contender]:
    """Return ways to denoise one image: the RAUNet, U-Nets of its size, non-local means, BM3D."""
    model, ccd = zoo.load("raunet"), make_ccd(size)
    z = torch.from_numpy(ccd.data)[None, None]
    valid, t, n = torch.ones_like(z), torch.zeros(1, dtype=torch.long), count(model.regressor)
    contenders = [
        Contender("raunet, network", inference(lambda: model.regressor(z, valid)), n),
        Contender("raunet, both orientations", inference(lambda: model.estimate(z, valid)), n),
        Contender("enhance, raunet", timed(lambda: enhance(ccd, model=model)), n),
    ]
    for name, network in make_peers(n).items():
        measure = inference(partial(evaluate, network.eval(), z, t))
        contenders.append(Contender(name, measure, count(network)))
    return contenders + classical(ccd.data, threads)


def classical(data: np.ndarray, threads: int) -> list[Contender]:
    """Return classical methods that denoise an image of unit noise: non-local means, BM3D."""
    contenders = [
        Contender("non-local means (scikit-image)", timed(lambda: classics.non_local_means(data, 1.0)))
    ]
    try:
        from bm3d import BM3DProfile, bm3d
    except ImportError as error:
        miss("bm3d", error)
    else:
        profile = BM3DProfile()
        profile.num_threads = threads
        contenders.append(Contender("bm3d", timed(lambda: bm3d(data, 1.0, profile))))
    return contenders


def infer_frame(size: int, threads: int) -> list[Contender]:
    """Return ways to denoise a frame, ours as a user calls them: at the defaults, with the check."""
    ccd = make_ccd(size)
    models = ("raunet", "raunet-fast", "ddpm")
    calls = [timed(partial(enhance, ccd, model=zoo.load(name), seed=1)) for name in models]
    ours = [Contender(f"enhance, {name}", call) for name, call in zip(models, calls, strict=True)]
    return ours + classical(ccd.data, threads)


def matrix_rate() -> float:
    """Return the operations per second of a product of matrices in float32."""
    a = torch.ones(2048, 2048)
    return 2 * 2048**3 / min(timed(lambda: a @ a)() for _ in range(5))


def share_of_matrix_rate(size: int, name: str, seconds: float) -> float:
    """Return the share of the rate of matrix products at which the networks work that ``enhance`` calls."""
    with FlopCounterMode(display=False) as counter:
        enhance(make_ccd(size), model=name, seed=1)
    return counter.get_total_flops() / seconds / matrix_rate()


def write_frames(path: Path, sizes, groups: dict[int, dict], shares: dict[str, float], threads: int) -> None:
    """Write the table of the documentation: seconds of frames, by contender."""
    seconds = {size: {c["name"]: c["median"] for c in group["contenders"]} for size, group in groups.items()}
    largest = max(seconds)
    rows = [["frame", *seconds[largest]]]
    for size in sizes:
        if size in seconds:
            times = [f"{value:.3g} s" for value in seconds[size].values()]
        else:  # each pixel takes the same
            times = [f"about {(size / largest) ** 2 * value:.0f} s" for value in seconds[largest].values()]
        rows.append([f"{size} x {size}", *times])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    line = " ".join("=" * width for width in widths)
    text = [" ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    said = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    note = f'*{threads} threads. "About" is extrapolated. Share of the rate of matrix products: {said}.*'
    path.write_text("\n".join([line, text[0], line, *text[1:], line, "", note, ""]))


def infer_ddpm() -> list[Contender]:
    """Return ways to evaluate a network as often as it takes to draw samples of a stamp."""
    model, ccd = zoo.load("ddpm"), make_ccd(STAMP)
    z = torch.from_numpy(ccd.data)[None, None]
    valid, n = torch.ones_like(z), count(model.denoiser)
    noise = torch.randn(SAMPLES, 1, STAMP, STAMP, generator=torch.Generator().manual_seed(1))
    t = torch.zeros(SAMPLES, dtype=torch.long)
    with torch.inference_mode():
        estimate = model.estimate(z, valid)

    steps = model.default_steps

    def repeat(network):
        for _ in range(steps):
            evaluate(network, noise, t)

    contenders = [
        Contender("ddpm", inference(lambda: model.draw(z, valid, estimate, DEPTH, noise, steps)), n),
        Contender(
            "enhance, ddpm",
            timed(lambda: enhance(ccd, model=model, n_samples=SAMPLES, seed=1)),
            n,
        ),
    ]
    for name, network in make_peers(n).items():
        measure = inference(partial(repeat, network.eval()))
        contenders.append(Contender(name, measure, count(network)))
    return contenders


def imports() -> list[Contender]:
    """Return imports, each in an interpreter of its own and without the start of that."""
    script = "from time import {0} as clock; start = clock(); import {1}; print(clock() - start)"

    def contender(name):
        command = [sys.executable, "-c", script.format(clock.__name__, name)]
        return Contender(f"import {name}", lambda: float(subprocess.check_output(command, text=True)))

    return [contender(name) for name in ("astro_ddpm", "numpy", "astropy.nddata", "torch")]


def take_turns(contenders: list[Contender], repeats: int) -> np.ndarray:
    """
    Time all contenders in rounds, every other round backwards, after one round that does not count.

    Parameters
    ----------
    contenders : list of Contender
        The contenders.

    repeats : int
        The number of rounds.

    Returns
    -------
    seconds : `~numpy.ndarray`, shape (contenders, repeats)
        The times.
    """
    seconds = np.empty((len(contenders), repeats + 1))
    for i in range(repeats + 1):
        for j in range(len(contenders))[:: 1 - 2 * (i % 2)]:
            seconds[j, i] = contenders[j].measure()
    return seconds[:, 1:]


def report(title: str, contenders: list[Contender], seconds: np.ndarray) -> dict:
    """
    Print the table of one group.

    Parameters
    ----------
    title : str
        The title of the group.

    contenders : list of Contender
        The contenders; ratios are to the first.

    seconds : `~numpy.ndarray`, shape (contenders, repeats)
        Their times.

    Returns
    -------
    result : dict
        What was printed, and all times.
    """
    print(f"\n{title}\n{'':31}{'parameters':>11}{'seconds (quartiles)':>30}{'ratio (quartiles)':>27}")
    rows = []
    for contender, times, ratios in zip(contenders, seconds, seconds / seconds[0], strict=True):
        low, median, high = np.quantile(times, [0.25, 0.5, 0.75])
        ratio_low, ratio, ratio_high = np.quantile(ratios, [0.25, 0.5, 0.75])
        print(
            f"{contender.name:31}{contender.parameters or '':>11}"
            f"{f'{median:.4f} ({low:.4f} to {high:.4f})':>30}"
            f"{f'{ratio:.2f} ({ratio_low:.2f} to {ratio_high:.2f})':>27}",
            flush=True,
        )
        rows.append(
            {
                "name": contender.name,
                "parameters": contender.parameters,
                "seconds": times.tolist(),
                "median": median,
                "quartiles": [low, high],
                "ratio": ratio,
                "ratio_quartiles": [ratio_low, ratio_high],
            }
        )
    return {"title": title, "contenders": rows}


def describe_machine(threads: int) -> dict:
    """Return what the numbers depend on: processor, threads, versions."""
    versions = {"python": platform.python_version()}
    for name in ("astro_ddpm", "torch", "numpy", *PEERS, "bm3d"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "versions": versions,
    }


def parse(argv=None) -> argparse.Namespace:
    """Read the command line."""

    def positive(text):
        value = int(text)
        if value < 1:
            msg = f"must be at least 1, not {value}"
            raise argparse.ArgumentTypeError(msg)
        return value

    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--threads", type=positive, default=os.cpu_count(), help="of PyTorch and BM3D")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="time that passes (default) or CPU time of all threads",
    )
    parser.add_argument("--batch", type=positive, default=16, help="images in a training step (16)")
    parser.add_argument("--size", type=positive, default=64, help="pixels on a side in training (64)")
    parser.add_argument("--frame", type=positive, default=128, help="pixels on a side of the image (128)")
    parser.add_argument("--sizes", type=positive, nargs="+", default=[256, LARGE, 4096], help="of frames")
    parser.add_argument("--table", type=Path, help="file of the documentation for the times of frames")
    parser.add_argument("--repeats", type=positive, default=9, help="rounds that count (9)")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, help="groups to run (all)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write all times there")
    args = parser.parse_args(argv)
    for name in ("size", "frame"):
        if getattr(args, name) % 8:
            parser.error(f"argument --{name}: must be a multiple of 8, which the other U-Nets need")
    if min(args.sizes) > LARGE:
        parser.error(
            f"argument --sizes: must hold one of at most {LARGE}, from which larger ones are extrapolated"
        )
    if args.json and args.json.exists():
        parser.error(f"argument --json: {args.json} exists")
    return args


def frames(args: argparse.Namespace) -> list[dict]:
    """Time frames of several sizes, large ones once, and write their table if that is wanted."""
    groups = {}
    for size in (size for size in args.sizes if size <= LARGE):
        contenders = infer_frame(size, args.threads)
        groups[size] = report(
            f"A frame of {size}x{size} pixels",
            contenders,
            take_turns(contenders, args.repeats if size <= 256 else 1),
        )
    size, shares = max(groups), {}
    for contender in groups[size]["contenders"]:
        title, _, name = contender["name"].partition(", ")
        if title == "enhance":
            shares[contender["name"]] = share_of_matrix_rate(size, name, contender["median"])
            print(
                f"{contender['name']}: {100 * shares[contender['name']]:.0f} % of the rate of matrix products"
            )
    if args.table:
        write_frames(args.table, args.sizes, groups, shares, args.threads)
    return list(groups.values())


def main(argv=None) -> None:
    """Run the groups, print their tables, write the times."""
    global clock  # noqa: PLW0603 - one clock for the whole run
    args = parse(argv)
    clock = CLOCKS[args.clock]
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    machine = describe_machine(args.threads) | {"clock": args.clock}
    print(json.dumps(machine))
    batch = make_batch(args.batch, args.size)
    step = f"Training step, {args.batch} images of {args.size}x{args.size} pixels, U-Nets of the size of"
    image = f"An image of {args.frame}x{args.frame} pixels"
    samples = f"{SAMPLES} samples of {STAMP}x{STAMP} pixels, equal numbers of evaluations"
    groups = {
        "train-raunet": (f"{step} the RAUNet", lambda: train_raunet(batch)),
        "train-denoiser": (f"{step} the denoiser", lambda: train_denoiser(batch)),
        "raunet": (image, lambda: infer_raunet(args.frame, args.threads)),
        "ddpm": (samples, infer_ddpm),
        "import": ("Import", imports),
    }
    results = []
    for title, make in (groups[name] for name in args.only if name in groups):
        contenders = make()
        results.append(report(title, contenders, take_turns(contenders, args.repeats)))
    if "frames" in args.only:
        results += frames(args)
    if args.json:
        with atomic_path(args.json) as partial:
            partial.write_text(json.dumps({"machine": machine, "groups": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
