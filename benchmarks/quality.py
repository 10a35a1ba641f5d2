# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measures behind the figures of docs/trust.rst that need nothing but prepared arrays, or no data at all.

    python benchmarks/quality.py added-noise val.npz --factors 5 10 20 50 --model raunet
    python benchmarks/quality.py pure-noise --number 1000 --model raunet
    python benchmarks/quality.py shared-noise val.npz
    python benchmarks/quality.py solver train.npz --number 48 --model ddpm --output ddpm.safetensors
    python benchmarks/quality.py temperature train.npz --number 67 --model ddpm
    python benchmarks/quality.py posterior val.npz --model ddpm
    python benchmarks/quality.py flux-pulls val.npz --number 36 --model ddpm
    python benchmarks/quality.py scene-pulls --number 24 --model ddpm
    python benchmarks/quality.py self-noise --number 32 --model raunet
    python benchmarks/quality.py cameras arrays --number 8 --model raunet --cache bm3d

The last takes the folder that ``astro-ddpm prepare --cameras`` wrote, and adds simulated fields. In four bins
of brightness it prints the error in units of the input noise, the same of the input, the error over that
of BM3D, the bias, how often the truth lies within the uncertainty, and the number of pixels.
"""

import argparse
import hashlib
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import QTable
from comparison import WORDS, write_rst
from scipy.ndimage import gaussian_filter, label
from scipy.stats import norm

from astro_ddpm import enhance, zoo
from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.diffusion import Denoiser, fit_solver
from astro_ddpm.evaluation import coverage, crps
from astro_ddpm.evaluation.calibration import BINS
from astro_ddpm.noise import fill_holes, smooth_sigma
from astro_ddpm.training import homogenize_psf, split_exposure
from astro_ddpm.training.arrays import open_arrays

LEVELS = (6.0, 1.7, 0.7, 0.25)  # of the solver, the best of a dozen tried
INNER = (slice(8, -8), slice(8, -8))
CAMERAS = {
    "apogee_pairs": "ESO 85-38",
    "kepler_deep": "Kepler",
    "kpno09_frames": "KPNO 0.9 m",
    "m13_frames": "M13",
    "vista_h_pairs": "VISTA H",
}


def run(data, sigma, args, model, seed, depth):
    """Enhance one image whose noise is known."""
    sigma = StdDevUncertainty(np.broadcast_to(sigma, data.shape).astype("f4"))
    image = CCDData(data.astype("f4"), unit="adu", uncertainty=sigma)
    return enhance(image, model=model, n_samples=args.samples, seed=seed, noise_ratio=depth)


def added_noise(args):
    """Deep images with k times their own noise: error over that of BM3D, and coverage."""
    import bm3d

    model, arrays = zoo.load(args.model), open_arrays(args.arrays)
    deep, sigmas = arrays["deep"], arrays.get("deep_sigma", arrays.get("sky_sigma"))
    for factor in args.factors:
        rng = np.random.default_rng(int(factor))
        errors, bm3d_errors, samples, truth = [], [], [], []
        for seed, (image, sigma) in enumerate(zip(deep[: args.number], sigmas, strict=False)):
            noisy = image + factor * sigma * rng.standard_normal(image.shape)
            total = np.hypot(1, factor) * np.broadcast_to(sigma, image.shape).astype(float)
            result = run(noisy, total, args, model, seed, 1 / np.hypot(1, factor))
            bm3d_mean = bm3d.bm3d(noisy.astype(float), sigma_psd=float(np.median(total)))
            errors.append(((result.data - image) / total)[INNER])
            bm3d_errors.append(((bm3d_mean - image) / total)[INNER])
            if result.samples is not None:
                samples.append(result.samples[(slice(None), *INNER)])
                truth.append(image[INNER])
        ours, theirs = (np.sqrt(np.mean(np.square(e))) for e in (errors, bm3d_errors))
        own = 1 / np.hypot(1, factor)  # the noise of the deep images, which nothing can predict
        clean = np.sqrt((ours**2 - own**2) / (theirs**2 - own**2))
        line = f"k = {factor:g}: {ours:.3f}, BM3D {theirs:.3f}, ratio {ours / theirs:.2f}"
        line += f", {clean:.2f} without the noise of the deep images"
        if samples:
            line += f", 68 and 95 % cover {coverage(np.stack(samples, axis=1), np.stack(truth))[0].round(3)}"
        print(line)


def pure_noise(args):
    """White noise: places where the mean exceeds 5 times the deep noise."""
    model, found = zoo.load(args.model), 0
    for seed in range(args.number):
        noise = np.random.default_rng([seed, 1]).standard_normal((64, 64))
        found += label(run(noise, 1.0, args, model, seed, 0.2).data > 5 * 0.2)[1]
    print(f"{found} places in {args.number} images")


def shared_noise(args):
    """What a perfect scene would get where the kernel of the truth is fitted to the input."""
    arrays = open_arrays(args.arrays)
    rng = np.random.default_rng(0)
    errors, levels, fluxes = [], [], []
    for deep, sigma in zip(arrays["deep"].astype(float), arrays["sigma"].astype(float), strict=True):
        data = deep + sigma * rng.standard_normal(deep.shape)
        error = homogenize_psf(data, deep, sigma).image - deep
        errors.append((error / sigma)[INNER])
        levels.append((deep / np.median(sigma))[INNER])
        y, x = np.mgrid[: deep.shape[0], : deep.shape[1]] - (deep.shape[0] - 1) / 2
        discs = [np.hypot(x, y) <= radius for radius in (5, 10, 20)]
        fluxes.append([error[disc].sum() / np.sqrt(np.sum(sigma[disc] ** 2)) for disc in discs])
    errors, levels = np.array(errors), np.array(levels)
    for name, (low, high) in BINS.items():
        print(f"{name}: {np.sqrt(np.mean(errors[(levels >= low) & (levels < high)] ** 2)):.3f}")
    scatter = 1.4826 * np.median(np.abs(fluxes - np.median(fluxes, axis=0)), axis=0)
    print(f"flux scatter within 5, 10, 20 pixels: {scatter.round(2)}")


def solver(args):
    """Fit weights with which samples take few evaluations to prepared pairs, and write the model."""
    model, arrays = replace(zoo.load(args.model), solver=None), open_arrays(args.arrays)
    rows = np.linspace(0, len(arrays["shallow"]) - 1, min(args.number, len(arrays["shallow"]))).astype(int)
    with torch.inference_mode():
        cases = [solver_case(model, arrays, row, (1, 0.6, 1, 1.6)[i % 4]) for i, row in enumerate(rows)]
        fitted = fit_solver(cases, args.levels)
    zoo.save(replace(model, solver=fitted), args.output, overwrite=True)
    print(f"{args.output}: weights of the result {np.round([row[0] for row in fitted.weights[-1]], 2)}")


def solver_case(model, arrays, row, factor):
    """Return denoiser, mean, standard deviation and noise of one prepared pair, for `fit_solver`."""
    data, sigma, valid = (arrays[key][row].astype("f4") for key in ("shallow", "sigma", "valid"))
    noise_ratio = factor * float(arrays["depth"][row])
    data, sigma = fill_holes(data, sigma, valid > 0)
    z, valid = (torch.from_numpy(np.asarray(plane, "f4"))[None, None] for plane in (data / sigma, valid))
    mean, scene_std = model.estimate(z, valid)
    std = torch.sqrt(scene_std.square() + noise_ratio**2)
    guide, ratio = model.denoiser.encode(z, valid, mean, scene_std), torch.full((2,), noise_ratio)
    denoiser = Denoiser(lambda x, level: model.denoiser(x, level, guide, ratio))
    noise = torch.randn((2, *z.shape[1:]), generator=torch.Generator().manual_seed(int(row)))
    return lambda x, level: denoiser(x, level, mean, std), mean, std, model.temperature * noise


def temperature(args):
    """Temperature that makes the 68 % intervals cover 68 % of prepared pairs."""
    model, arrays = replace(zoo.load(args.model), temperature=1.0), open_arrays(args.arrays)
    samples, truth, levels = [], [], []
    for seed in range(min(args.number, len(arrays["shallow"]))):
        data, sigma, target, depth = (arrays[k][seed] for k in ("shallow", "sigma", "target", "depth"))
        result = run(data, sigma, args, model, seed, float(depth))
        samples.append(result.samples[(slice(None), *INNER)])
        truth.append(target[INNER])
        levels.append((target / np.median(sigma))[INNER])
    samples, truth, levels = np.stack(samples, axis=1), np.stack(truth), np.stack(levels)
    picks = [(levels >= low) & (levels < high) for low, high in BINS.values()]
    covered = np.array([coverage(samples[:, pick], truth[pick], 0.68)[0] for pick in picks])
    fitted = norm.ppf(0.84) / norm.ppf(0.5 + covered / 2)
    print(f"68 % cover {covered.round(3)}, temperatures {fitted.round(2)}, mean {fitted.mean():.2f}")


def posterior(args):
    """Fair CRPS and coverage of prepared pairs, in pixels and in apertures round the centre."""
    model, arrays = zoo.load(args.model), open_arrays(args.arrays)
    keys, rows = ("shallow", "sigma", "target", "depth"), range(min(args.number, len(arrays["shallow"])))
    samples, truth, levels = [], [], []
    apertures = {radius: ([], []) for radius in (3, 5, 10, 20)}
    for seed in rows:
        data, sigma, target, depth = (arrays[key][seed].astype(float) for key in keys)
        result = run(data, sigma, args, model, seed, float(depth))
        samples.append((result.samples / sigma)[(slice(None), *INNER)])
        truth.append((target / sigma)[INNER])
        levels.append((target / np.median(sigma))[INNER])
        y, x = np.mgrid[: data.shape[0], : data.shape[1]] - (data.shape[0] - 1) / 2
        for radius, (fluxes, true_flux) in apertures.items():
            disc = np.hypot(x, y) <= radius
            error = np.sqrt(np.sum(sigma[disc] ** 2))
            fluxes.append(result.samples[:, disc].sum(axis=1) / error)
            true_flux.append(target[disc].sum() / error)
    samples, truth, levels = np.stack(samples, axis=1), np.stack(truth), np.stack(levels)
    picks = {name: (levels >= low) & (levels < high) for name, (low, high) in BINS.items()}
    cases = {name: (samples[:, pick], truth[pick]) for name, pick in picks.items()}
    cases |= {f"flux r={r}": (np.stack(f, axis=1), np.array(t)) for r, (f, t) in apertures.items()}
    for name, (draws, target) in {"all": (samples, truth), **cases}.items():
        covered = coverage(draws, target)[0].round(3)
        print(f"{name}: CRPS {crps(draws, target).mean():.4f}, 68 and 95 % cover {covered}")


def flux_pulls(args):
    """Pulls of fluxes in apertures on deep images with 5, 10 and 20 times their noise, by turns."""
    model, arrays = zoo.load(args.model), open_arrays(args.arrays)
    pulls = {radius: [] for radius in (3, 5, 10, 20)}
    for seed in range(min(args.number, len(arrays["deep"]))):
        factor = (5, 10, 20)[seed % 3]
        deep, sigma = (arrays[key][seed].astype(float) for key in ("deep", "deep_sigma"))
        noisy = deep + factor * sigma * np.random.default_rng(seed).standard_normal(deep.shape)
        total = np.hypot(1, factor)
        samples = run(noisy, total * sigma, args, model, seed, 1 / total).samples
        y, x = np.mgrid[: deep.shape[0], : deep.shape[1]]
        middle, quarters = (
            (deep.shape[0] - 1) / 2,
            (deep.shape[0] // 4, deep.shape[0] - 1 - deep.shape[0] // 4),
        )
        corners = [(row, column) for row in quarters for column in quarters]
        for radius, found in pulls.items():
            for row, column in [(middle, middle), *(corners if radius < 20 else [])]:
                disc = np.hypot(x - column, y - row) <= radius
                fluxes = samples[:, disc].sum(axis=1)
                width = fluxes.std(ddof=1) * np.sqrt(1 + 1 / len(fluxes))
                found.append((deep[disc].sum() - fluxes.mean()) / width)
    for radius, found in pulls.items():
        print(f"within {radius} pixels: rms of {len(found)} pulls {np.sqrt(np.mean(np.square(found))):.2f}")


def scene_pulls(args):
    """Errors of pixels of simulated fields in units of the uncertainty, by the estimated brightness."""
    model, pulls, levels = zoo.load(args.model), [], []
    for seed in range(args.number):
        field = make_galaxy_field((128, 128), seed=[seed, 3], n_galaxies=9, n_stars=3)
        result = enhance(field.image, model=model, n_samples=args.samples, seed=seed)
        use = ~field.image.mask
        pulls.append(((result.data - field.truth) / result.uncertainty.array)[use])
        levels.append((result.data / np.median(field.image.uncertainty.array))[use])
    pulls, levels = np.concatenate(pulls), np.concatenate(levels)
    table = QTable({"\\": ["rms of error / uncertainty", "share within one", "share within two"]})
    for name, (low, high) in BINS.items():
        inside = pulls[(levels >= low) & (levels < high)]
        shares = [np.mean(np.abs(inside) < width) for width in (1, 2)]
        table[WORDS[name]] = [np.sqrt(np.mean(inside**2)), *shares]
    print(table)
    if args.table:
        write_rst(args.table, table, {args.model: model.sha256}, f"{args.number} fields")


def self_noise(args):
    """Fluxes of simulated galaxies whose noise was computed from true, single and smoothed counts."""
    model, read_noise = zoo.load(args.model), 5.0
    for sky in (30, 100, 400, 2500):
        sky_sigma, errors = np.hypot(sky**0.5, read_noise), []
        for seed in range(args.number):
            field = make_galaxy_field((128, 128), seed=[seed, 9], n_galaxies=4, n_stars=1, bad_columns=0)
            truth = field.truth * sky_sigma / np.median(field.image.uncertainty.array)
            rng = np.random.default_rng(seed)
            counts = rng.poisson(truth + sky) + read_noise * rng.standard_normal(truth.shape)
            single = np.sqrt(np.maximum(counts, 0) + read_noise**2)
            sigmas = np.sqrt(truth + sky + read_noise**2), single, smooth_sigma(single)
            source = truth > sky_sigma
            flux_error = np.sqrt(np.sum(sigmas[0][source] ** 2))
            for sigma in sigmas:
                result = run(counts - sky, sigma, args, model, seed, None)
                errors.append((result.data - truth)[source].sum() / flux_error)
        true, *others = np.reshape(errors, (args.number, 3)).T
        print(f"sky of {sky} electrons: {true.mean():+.2f} errors with the noise of the truth; beyond it")
        for name, more in zip(("each pixel", "smoothed counts"), np.subtract(others, true), strict=True):
            print(f"    {more.mean():+.2f} +- {more.std(ddof=1) / args.number**0.5:.2f} with that of {name}")


def camera_stamps(path, number):
    """Stamps of prepared arrays with as many pixels in each bin as there are: rows of image to use."""
    arrays = open_arrays(path)
    name = next(name for name in ("shallow", "data", "deep") if name in arrays)
    factor = {"shallow": 0, "data": 4, "deep": 8}[name]  # by which frames and deep images are split
    images, ones = arrays[name], np.ones(arrays[name].shape, bool)
    sigmas = arrays.get("sigma", np.reshape(arrays.get("sky_sigma", 0), (-1, 1, 1)) * ones)
    use = arrays.get("use", ones)
    levels = arrays.get("target", images) / np.median(sigmas, axis=(1, 2), keepdims=True) / (factor or 1)
    counts = [np.sum((levels >= low) & (levels < high) & use, axis=(1, 2)) for low, high in BINS.values()]
    draws = np.random.default_rng(0).uniform(0.2, 1, (4, len(images))) * counts
    order = np.argsort(-draws, axis=1)
    for index in list(dict.fromkeys(order.T.ravel().tolist()))[:number]:
        image, sigma = images[index].astype(float), sigmas[index].astype(float)
        if factor:
            noise = np.random.default_rng([index, 7]).standard_normal(image.shape)
            data, total, truth = split_exposure(image, sigma, factor, noise)
        else:
            data, total, truth = image, sigma, arrays["target"][index].astype(float)
        valid = arrays.get("valid", ones)[index]
        data, total = fill_holes(data, total, valid)
        own = 1 / factor if factor else float(arrays["depth"][index])
        yield data, total, truth, own, use[index] & valid


def simulated_stamps(fwhm, number):
    """Fields with bright stars, their peak S/N from 30 to 3000."""
    for index in range(number):
        rng = np.random.default_rng([index, int(10 * fwhm)])
        options = {"n_galaxies": 5, "n_stars": 3, "n_companions": 1, "bad_columns": 0}
        field = make_galaxy_field((96, 96), seed=1000 + index, psf_fwhm=fwhm, **options)
        sky = field.sky_level / field.gain + (field.read_noise / field.gain) ** 2
        peak = 10 ** rng.uniform(1.5, np.log10(3000))  # x / sqrt(sky + x / g) of the brightest pixel x
        top = (peak**2 / field.gain + np.sqrt((peak**2 / field.gain) ** 2 + 4 * peak**2 * sky)) / 2
        truth = field.truth / field.truth.max() * top
        sigma = np.sqrt(sky + truth / field.gain)
        data = truth + sigma * rng.standard_normal(truth.shape)
        yield data, sigma, truth, 0.0, np.ones(truth.shape, bool)


def cached_bm3d(data, sigma, folder):
    """BM3D, or what it gave before for the same image."""
    import bm3d

    name = hashlib.sha256(data.astype("f4").tobytes() + np.float32(sigma).tobytes()).hexdigest()[:24]
    path = Path(folder, f"{name}.npy") if folder else None
    if path and path.exists():
        return np.load(path)
    mean = bm3d.bm3d(data.astype(float), sigma_psd=sigma)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, mean.astype("f4"))
    return mean


def cameras(args):
    """Cameras and simulated PSFs by brightness."""
    model = zoo.load(args.model)
    paths = (
        path for path in sorted(Path(args.arrays).glob("*.npz")) if not args.only or path.stem in args.only
    )
    cases = {path.stem: camera_stamps(path, args.number) for path in paths}
    cases |= {f"simulated, FWHM {width:g}": simulated_stamps(width, args.number) for width in args.widths}
    table = []
    for name, stamps in cases.items():
        rows, cells = [], {"camera": CAMERAS.get(name, name)}
        for seed, (data, sigma, truth, own, use) in enumerate(stamps):
            result = run(data, sigma, args, model, seed, None)
            sky = np.median(sigma)
            theirs = cached_bm3d(data, sky, args.cache)
            planes = [(image - truth) / sigma for image in (result.data, data, theirs)]
            width = np.hypot(result.uncertainty.array / sigma, own)
            smooth = gaussian_filter(truth, 1)  # the noise of a truth would choose the bin of faint pixels
            level = np.where(truth > 4 * sky, truth, smooth) / sky
            planes = [plane[INNER] for plane in (*planes, width, level, np.full(data.shape, own))]
            rows.append(np.stack(planes)[:, use[INNER]])
        ours, given, theirs, width, level, own = np.concatenate(rows, axis=1)
        line = f"{name:20s}"
        for word, (low, high) in zip(WORDS.values(), BINS.values(), strict=True):
            pick = (level >= low) & (level < high)
            cells[word] = ""
            if pick.sum() < 200:
                line += f" | {'':39s}"
                continue
            floor = np.mean(own[pick] ** 2)
            squares = (np.mean(error[pick] ** 2) - floor for error in (ours, given, theirs))
            error, before, other = np.sqrt(np.maximum(list(squares), 1e-6))
            covered = np.mean(np.abs(ours[pick]) < width[pick])
            line += f" | {error:.3f} {before:.2f} {error / other:.2f} {ours[pick].mean():+.3f}"
            line += f" {covered:.2f} {pick.sum():7d}"
            cells[word] = f"{error / before:.2f},\u00a0{error / other:.2f}"
        table.append(cells)
        print(line, flush=True)
    if args.table:
        write_rst(args.table, QTable(table), {args.model: model.sha256}, f"{args.number} stamps each")


def main():
    """Run one of the measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    of_ddpm = solver, temperature, posterior, flux_pulls, scene_pulls
    for measure in (added_noise, pure_noise, shared_noise, *of_ddpm, self_noise, cameras):
        command = commands.add_parser(measure.__name__.replace("_", "-"), help=measure.__doc__)
        if measure not in (pure_noise, scene_pulls, self_noise):
            command.add_argument("arrays", help="prepared arrays, or their folder")
        command.add_argument("--model", default="ddpm" if measure in of_ddpm else "raunet")
        command.add_argument("--samples", type=int, default=16)
        command.add_argument("--number", type=int, default=1000, help="how many images, at most")
        command.add_argument("--factors", type=float, nargs="+", default=[5, 10, 20, 50])
        if measure in (scene_pulls, cameras):
            command.add_argument("--table", help="file of the documentation to write")
        if measure is cameras:
            command.add_argument("--only", nargs="+", help="names of the arrays; all by default")
            command.add_argument("--widths", type=float, nargs="+", default=[1.5, 2, 3, 4, 6, 9], help="FWHM")
        if measure is solver:
            command.add_argument("--levels", type=float, nargs="+", default=LEVELS, help="noise levels")
            command.add_argument("--output", required=True, help="file for the model with its solver")
        command.add_argument("--cache", help="folder for the results of BM3D")
        command.set_defaults(measure=measure)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    args.measure(args)


if __name__ == "__main__":
    main()
