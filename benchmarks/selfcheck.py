# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measures of the check without truth: estimated against true errors of simulated cameras, harm, coverage, cost.

    python benchmarks/selfcheck.py fields --number 2 --model raunet
    python benchmarks/selfcheck.py fields --spoil 1.4 --number 1
    python benchmarks/selfcheck.py cameras --arrays arrays --number 12
    python benchmarks/selfcheck.py alarms --number 100 --arrays arrays
    python benchmarks/selfcheck.py cost --size 512
"""

import argparse
import dataclasses
import time
import warnings
from pathlib import Path

import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty

from astro_ddpm import enhance, zoo
from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.noise import correlated_noise
from astro_ddpm.selfcheck import judge_noise, local_mean

CAMERAS = [  # FWHM, amplitude, noise
    (1.5, 5, "white"),
    (2, 1, "white"),
    (2, 30, "white"),
    (3, 300, "white"),
    (4, 3, "correlated"),
    (6, 3, "white"),
    (9, 30, "white"),
]
KERNEL = np.outer([0.25, 1, 0.25], [0.25, 1, 0.25])
ELECTRONS = 2.0  # per unit of flux
SKY_VARIANCE = 200 / 2 + (5 / 2) ** 2


class Spoiled(zoo.Model):
    """A model whose residual is multiplied by a number."""

    spoil = 1.0

    def estimate(self, z, valid, core=None):
        """Mean and standard deviation of the residual."""
        mean, std = super().estimate(z, valid, core)
        return self.spoil * mean, std


def make_field(fwhm, amplitude, noise, seed, size=256):
    """Return image and truth in units of the noise."""
    field = make_galaxy_field((size, size), seed=[seed, 5], psf_fwhm=fwhm, n_stars=12, bad_columns=0)
    truth = field.truth * amplitude
    sigma = np.sqrt(SKY_VARIANCE + truth / ELECTRONS)
    rng = np.random.default_rng([seed, int(10 * fwhm)])
    if noise == "white":
        added = rng.standard_normal(truth.shape)
    else:
        added = correlated_noise(truth.shape, KERNEL, rng)
    return (truth / sigma + added).astype(np.float32), truth / sigma


def run(z, model, seed, **kwargs):
    """Enhance an image in units of its noise."""
    image = CCDData(z, unit="", uncertainty=StdDevUncertainty(np.ones_like(z)))
    return enhance(image, model=model, seed=seed, **kwargs)


def load(args):
    """Load the model, spoiled if that is wanted."""
    model = zoo.load(args.model)
    Spoiled.spoil = args.spoil
    return Spoiled(**{entry.name: getattr(model, entry.name) for entry in dataclasses.fields(model)})


def measure(args):
    """Yield camera and one row for each bin: number, true errors before and after, estimate, coverage."""
    model = load(args)
    for camera in CAMERAS:
        for seed in range(args.number):
            z, truth = make_field(*camera, seed, args.size)
            deep = run(z, model, seed, n_samples=args.samples)
            error = np.abs(deep.data - truth)
            brightness = local_mean(deep.data, np.ones(z.shape, bool))
            place = np.digitize(brightness, [*deep.check["low"], np.inf]) - 1
            for i, row in enumerate(deep.check):
                inside = place == i
                true = np.sqrt(np.mean(error[inside] ** 2))
                noise = np.sqrt(np.mean((z - truth)[inside] ** 2))
                covered = np.mean(error[inside] < deep.uncertainty.array[inside])
                yield (
                    camera,
                    {
                        "low": row["low"],
                        "n": row["n_pixels"],
                        "input": noise,
                        "true": true,
                        "rms": row["rms"],
                        "rms_err": row["rms_err"],
                        "factor": row["factor"],
                        "covered": covered,
                    },
                )


def fields(args):
    """Estimated and true errors of simulated fields."""
    rows = []
    for camera, row in measure(args):
        if row["n"] >= 500:
            rows.append(row)
            text = ", ".join(f"{name} {value:.3f}" for name, value in row.items() if name not in ("low", "n"))
            print(f"{camera} from {row['low']:g}: {row['n']} pixels, {text}", flush=True)
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    ratio, pulls = columns["rms"] / columns["true"], (columns["rms"] - columns["true"]) / columns["rms_err"]
    for low, high in ((500, 1000), (1000, 20000), (20000, np.inf)):
        pick = (columns["n"] >= low) & (columns["n"] < high)
        if pick.any():
            within = [np.mean(np.abs(ratio[pick] - 1) < limit) for limit in (0.05, 0.15)]
            print(f"{low} pixels and more: {pick.sum()} bins, within 5 and 15 % {np.round(within, 2)}")
    print(f"rms of pulls {np.sqrt(np.mean(pulls**2)):.2f}")
    print(f"worse than the input: {np.sum(columns['true'] > columns['input'])} of {len(rows)} bins")
    print(f"worst over input {np.max(columns['true'] / columns['input']):.3f}")
    print(f"coverage of 68 % from {columns['covered'].min():.3f} to {columns['covered'].max():.3f}")


def cameras(args):
    """Errors without and with the check on prepared cameras or pairs, in bins of the truth."""
    from quality import BINS, INNER, camera_stamps

    model = load(args)
    for path in sorted(Path(args.arrays).glob("*.npz")):
        rows = []
        for seed, (data, sigma, truth, own, use) in enumerate(camera_stamps(path, args.number)):
            planes = [truth / np.median(sigma), np.full(data.shape, own), (data - truth) / sigma]
            for verify in (False, True):
                deep = run((data / sigma).astype(np.float32), model, seed, verify=verify)
                planes += [deep.data - truth / sigma, deep.uncertainty.array]
            rows.append(np.stack([plane[INNER][use[INNER]] for plane in planes]))
        level, own, given, *results = np.concatenate(rows, axis=1)
        for name, (low, high) in BINS.items():
            inside = (level >= low) & (level < high)
            if inside.sum() < 500:
                continue
            floor = np.mean(own[inside] ** 2)
            planes = (given, results[0], results[2])
            rms = [np.sqrt(max(np.mean(plane[inside] ** 2) - floor, 0)) for plane in planes]
            covered = [
                np.mean(np.abs(error) < np.hypot(std, own), where=inside)
                for error, std in (results[:2], results[2:])
            ]
            print(f"{path.stem} {name}: {inside.sum()} pixels, input {rms[0]:.3f}, ", end="")
            print("without and with {:.4f} {:.4f}, coverage {:.3f} {:.3f}".format(*rms[1:], *covered))


def right_images(args):
    """Yield kind and images in units of their noise."""
    options = {
        "field": {},
        "crowded": {"n_stars": 300, "psf_fwhm": 3.0},
        "no sky at all": {"n_stars": 1500, "psf_fwhm": 3.0},
    }
    for seed in range(args.number):
        for name, more in options.items():
            field = make_galaxy_field((160, 160), seed=[seed, 7], bad_columns=0, **more)
            sigma = field.image.uncertainty.array
            noise = correlated_noise(sigma.shape, KERNEL, np.random.default_rng(seed))
            yield name, field.image.data / sigma
            yield f"{name}, correlated", field.truth / sigma + noise
    for path in sorted(Path(args.arrays).glob("*.npz")) if args.arrays else ():
        from quality import camera_stamps

        yield from ((path.stem, data / sigma) for data, sigma, *_ in camera_stamps(path, args.number))


def alarms(args):
    """False and missed alarms about the noise."""
    told, number = {}, {}
    for kind, z in right_images(args):
        number[kind] = number.get(kind, -1) + 1
        for factor in (1, 0.3, 0.7, 1.5, 3, 10) if number[kind] % 10 == 0 else (1,):
            judgement = judge_noise(z / factor, np.ones(z.shape, bool))
            told.setdefault((kind, factor), []).append(bool(judgement.warnings()))
    for (kind, factor), found in told.items():
        print(f"{kind}, noise {factor:g} times: told in {np.sum(found)} of {len(found)}")


def cost(args):
    """CPU time with and without the check."""
    z, _ = make_field(4, 1, "white", 0, args.size)
    model, spent = load(args), {}
    for verify in (True, False) * 3:
        start = time.process_time()
        run(z, model, 0, n_samples=args.samples, verify=verify)
        spent.setdefault(verify, []).append(time.process_time() - start)
    with_check, without = (min(spent[verify]) for verify in (True, False))
    print(
        f"{args.size}: {without:.2f} s without and {with_check:.2f} s with, {with_check / without:.2f} times"
    )


def main():
    """Run one of the measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for what in (fields, cameras, alarms, cost):
        command = commands.add_parser(what.__name__, help=what.__doc__)
        command.add_argument("--model", default="raunet")
        command.add_argument("--number", type=int, default=2, help="fields of each kind")
        command.add_argument("--samples", type=int, default=16)
        command.add_argument("--arrays", required=what is cameras, help="folder of prepared arrays")
        command.add_argument("--size", type=int, default=256)
        command.add_argument("--spoil", type=float, default=1.0, help="factor of the residual of the network")
        command.set_defaults(what=what)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    args.what(args)


if __name__ == "__main__":
    main()
