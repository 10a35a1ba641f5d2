# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What an adaptation to a camera changes: errors against deep images or split frames, refusals, cost.

    python benchmarks/adapt.py cameras INSTRUMENTS --cameras kepler kpno09 vista_h apogee
    python benchmarks/adapt.py home val.npz
    python benchmarks/adapt.py refusals
    python benchmarks/adapt.py cost --size 2048

INSTRUMENTS is the folder that the manifest of cameras belongs to. A camera with several exposures of one
field is adapted on the first of them, and judged on the mean of the others at its PSF. Of other cameras a
frame is split: the noisier half is the frame, the other one the truth. The noise of the truth is taken out in
quadrature.
"""

import argparse
import resource
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty
from scipy.ndimage import gaussian_filter

from astro_ddpm import enhance, zoo
from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.noise import BORDER, correlated_noise, estimate_sky_sigma, match_pair, noise_kernel
from astro_ddpm.selfcheck import judge_noise
from astro_ddpm.training import adapt, manifest, noise_gain, open_arrays, split_exposure
from astro_ddpm.training.heldout import NoisyFrame, Part, hold_out

BINS = {"sky": (-np.inf, 1), "1-5": (1, 5), "5-30": (5, 30), "> 30": (30, np.inf)}
FACTORS = {"frames": 4.0, "deep": 8.0}  # by which frames without a deep image are split
EDGE = 8  # pixels that are not judged
CUT = 512  # pixels, the largest part that is judged


def split_case(entry, path):
    """Return a frame, its noise, a truth, its noise over that of the frame, and what is valid and counts."""
    frame, factor = manifest.read_frame(entry, path)[0], FACTORS[entry.use]
    noise = np.random.default_rng(5).standard_normal(frame.data.shape)
    data, sigma, truth = split_exposure(frame.data, frame.sigma, factor, noise)
    use = frame.valid if entry.use == "deep" else frame.use
    return data, sigma, truth, np.full(data.shape, 1 / factor), frame.valid, use


def pair_case(entry, paths, size=96):
    """Return the same of the first of several exposures, the truth at its PSF, where it can be matched."""
    frames = [frame for path in paths for frame in manifest.read_frame(entry, path)]
    first = frames[0]
    others = np.stack(list(manifest._aligned(entry, paths, frames, 0))[1:])
    seen = np.isfinite(others).all(axis=0)
    deep = np.where(seen, np.mean(others, axis=0), 0)
    deep_sky, own = (
        estimate_sky_sigma(deep, ~seen),
        noise_kernel(deep / estimate_sky_sigma(deep, ~seen), seen),
    )
    truth, depth, use = np.zeros(deep.shape), np.ones(deep.shape), np.zeros(deep.shape, bool)
    for y in range(0, deep.shape[0] - size - 2 * BORDER + 1, size):
        for x in range(0, deep.shape[1] - size - 2 * BORDER + 1, size):
            place = tuple(slice(start, start + size + 2 * BORDER) for start in (y, x))
            inside = tuple(slice(start + BORDER, start + size + BORDER) for start in (y, x))
            valid = (first.valid & seen)[place]
            if valid.mean() < 0.75:
                continue
            planes = first.data[place], deep[place]
            options = {"sigma": first.sigma[place], "valid": valid, "deep_valid": seen[place]}
            pair = match_pair(*planes, variance_per_flux=1 / entry.gain, max_residual=np.inf, **options)
            good = pair.use & (pair.target < entry.brightest * first.sky_sigma)
            ratio = noise_gain(pair.kernel, own) * deep_sky / first.sky_sigma
            rms = np.sqrt(
                np.mean(((planes[0] - pair.target) / first.sigma[place])[good] ** 2) / (1 + ratio**2)
            )
            if rms < 1.2 and good.mean() > 0.6:
                cut = (slice(BORDER, -BORDER),) * 2
                truth[inside], depth[inside], use[inside] = pair.target[cut], ratio, good[cut]
    return first.data, first.sigma, truth, depth, first.valid, use


def make_ccd(data, sigma, valid):
    """Return a frame as an astronomer has it."""
    noise = StdDevUncertainty(sigma.astype(np.float32))
    return CCDData(
        data.astype(np.float32), unit="adu", uncertainty=noise, mask=None if valid.all() else ~valid
    )


def judge(case, model, *, verify):
    """Error over the input's noise, coverage and pixels of each bin."""
    data, sigma, truth, depth, valid, use = case
    deep = enhance(make_ccd(data, sigma, valid), model=model, n_samples=4, seed=1, verify=verify)
    sky = np.median(sigma)
    level = np.where(truth > 4 * sky, truth, gaussian_filter(truth, 1)) / sky
    error, width = (deep.data - truth) / sigma, deep.uncertainty.array / sigma
    inner = np.zeros(use.shape, bool)
    inner[EDGE:-EDGE, EDGE:-EDGE] = True
    rows = []
    for low, high in BINS.values():
        pick = (level >= low) & (level < high) & use & inner
        if pick.sum() < 200:
            rows.append((np.nan, np.nan, 0))
            continue
        floor = np.mean(depth[pick] ** 2)
        rms = np.sqrt(max(np.mean(error[pick] ** 2) - floor, 1e-6))
        rows.append((rms, np.mean(np.abs(error[pick]) < np.hypot(width, depth)[pick]), pick.sum()))
    return np.array(rows)


def brightest_part(case):
    """Cut out the part in which most bright pixels count."""
    _, sigma, truth, _, _, use = case
    bright = gaussian_filter(np.where(use, np.clip(truth / sigma, 0, 30), 0), 100)
    y, x = np.unravel_index(bright.argmax(), bright.shape)
    ny, nx = bright.shape
    top, left = (max(min(c - CUT // 2, n - CUT), 0) for c, n in ((y, ny), (x, nx)))
    return tuple(plane[top : top + CUT, left : left + CUT] for plane in case)


def factors(case, model):
    """Best factors of the residual by Stein, without guards, in the bins."""
    data, sigma, _, _, valid, _ = case
    z = np.where(valid, data / sigma, 0).astype(np.float32)
    frame = NoisyFrame(z, valid, judge_noise(z, valid).correlation)
    hold_out([frame], 0)
    part = Part(frame, tuple(slice(0, n) for n in z.shape), 0, "cpu")
    probe = part.probe(model.regressor)
    divergence = probe.signs * (probe.moved.mean - probe.answer.mean) / probe.step
    found = []
    for low, high in BINS.values():
        pick = valid & (probe.answer.local >= low) & (probe.answer.local < high)
        power = probe.noise[pick].mean() if pick.any() else np.nan
        found.append(
            -power * divergence[pick].mean() / np.mean(probe.answer.mean[pick] ** 2) if pick.any() else np.nan
        )
    return np.array(found)


def report(name, case, result, model):
    """Print errors before and after."""
    part = brightest_part(case)
    print(f"{name}: {'accepted' if result.accepted else 'refused'}: {result.reason}", flush=True)
    if result.table is not None:
        result.table.pprint_all()
    print("  w    " + "".join(f"{w:16.2f}" for w in factors(part, model)))
    for verify in (False, True):
        for label, each in (("before", model), ("after", result.model)):
            if each is not None:
                cells = (f"{rms:.3f} {cover:.3f}" for rms, cover, _ in judge(part, each, verify=verify))
                print(f"  {label:6s} {'check' if verify else 'alone'} " + " | ".join(cells), flush=True)


def cameras(args):
    """Cameras kept out of the training of the model."""
    root, model = Path(args.folder), zoo.load(args.model)
    known = Path(manifest.__file__).parent / "manifests" / "cameras.yaml"
    for entry in manifest.read_manifest(known):
        if entry.camera not in args.cameras:
            continue
        paths = [path for pattern in entry.files for path in sorted(root.glob(pattern))]
        case = pair_case(entry, paths) if entry.use == "pairs" else split_case(entry, paths[0])
        start = time.perf_counter()
        result = run(make_ccd(case[0], case[1], case[4]), args)
        report(f"{entry.camera}, {time.perf_counter() - start:.0f} s", case, result, model)


def run(frames, args):
    """Adapt, and leave no file."""
    with TemporaryDirectory() as folder:
        output = Path(folder) / "adapted.safetensors"
        return adapt(
            frames, args.model, output=output, steps=args.steps, minutes=args.minutes, seed=args.seed
        )


def home(args):
    """Stamps of the camera that the model knows best: as frames, and as pairs to judge by."""
    arrays, model = open_arrays(args.folder), zoo.load(args.model)
    number = min(args.number, len(arrays["shallow"]))
    shape = arrays["shallow"].shape[1:]
    valid = np.ones((number, *shape), bool)
    planes = [np.asarray(arrays[name][:number], float) for name in ("shallow", "sigma", "target")]
    frames = [make_ccd(*rows) for rows in zip(*planes[:2], valid, strict=True)]
    result = run(frames, args)
    print(f"home: {'accepted' if result.accepted else 'refused'}: {result.reason}")
    if not result.accepted:
        return
    depth = np.broadcast_to(np.asarray(arrays["depth"][:number])[:, None, None], valid.shape)
    for label, each in (("before", model), ("after", result.model)):
        rows = [judge(case, each, verify=False) for case in zip(*planes, depth, valid, valid, strict=True)]
        print(label, np.sqrt(np.nanmean(np.array(rows)[:, :, 0] ** 2, axis=0)).round(4))


def refusals(args):
    """Frames from which nothing can or may be learned."""
    rng = np.random.default_rng(args.seed)
    shape = (args.size, args.size)
    noise, ones = rng.standard_normal(shape), np.ones(shape)
    field = make_galaxy_field(shape, seed=1, n_galaxies=10, n_stars=20, bad_columns=0).image
    sigma = field.uncertainty.array
    small = (slice(0, 64),) * 2
    cases = {
        "pure noise": (noise, ones),
        "64 x 64": (field.data[small], sigma[small]),
        "noise stated half": (field.data, 0.5 * sigma),
        "noise stated twice": (field.data, 2 * sigma),
        "strongly correlated": (correlated_noise(shape, 3.0, rng), ones),
    }
    for name, (data, stated) in cases.items():
        result = run(make_ccd(data, stated, np.ones(data.shape, bool)), args)
        print(f"{name}: {'accepted' if result.accepted else 'refused'}: {result.reason}", flush=True)


def cost(args):
    """Time and memory of one frame, and whether it gives the same file twice."""
    field = make_galaxy_field((256, 256), seed=1).image  # a large one takes more memory than the adaptation
    tiles = (-(-args.size // 256),) * 2
    planes = (np.tile(plane, tiles) for plane in (field.data, field.uncertainty.array))
    data, sigma = (plane[: args.size, : args.size] for plane in planes)
    frame, hashes = make_ccd(data, sigma, np.ones(data.shape, bool)), []
    for _ in range(args.repeats):
        start = time.perf_counter()
        result = run(frame, args)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{time.perf_counter() - start:.0f} s, {memory:.2f} GiB: {result.reason}", flush=True)
        hashes.append(result.model and result.model.sha256)
    print("the same" if len(set(hashes)) == 1 else "different")


def main():
    """Run one of the measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for measure in (cameras, home, refusals, cost):
        command = commands.add_parser(measure.__name__, help=measure.__doc__)
        if measure in (cameras, home):
            command.add_argument("folder", metavar="DATA")
        command.add_argument("--cameras", nargs="+", default=["kepler", "kpno09", "vista_h", "apogee"])
        command.add_argument("--model", default="raunet")
        command.add_argument("--steps", type=int, default=200)
        command.add_argument("--minutes", type=float, default=10.0)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--size", type=int, default=256)
        command.add_argument("--number", type=int, default=1000, help="how many stamps, at most")
        command.add_argument("--repeats", type=int, default=1)
        command.set_defaults(measure=measure)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    args.measure(args)


if __name__ == "__main__":
    main()
