# Licensed under a 3-clause BSD style license - see LICENSE.rst
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, maximum_filter

from astro_ddpm.selfcheck import (
    check,
    check_answer,
    fit_expansion,
    judge_noise,
    local_mean,
    pool_tables,
    sentence,
)
from astro_ddpm.selfcheck.calibrate import Answer, Correction

SHAPE = 256, 256


def make_scene(seed=0, shape=SHAPE, number=60):
    """Blobs of all brightnesses on an empty sky."""
    rng = np.random.default_rng(seed)
    x = np.zeros(shape)
    places = rng.integers(0, shape, (number, 2))
    x[tuple(places.T)] = 10 ** rng.uniform(1, 4.5, number)
    return gaussian_filter(x, 3).astype(np.float32)


def wiener(z, gain=1.0, width=1.0):
    """A smoother that knows its error well in the sky and in blobs that are wider than it."""
    mean = gain * (gaussian_filter(z, 1.2) - z)
    return mean, np.full_like(z, width * np.sqrt(1 / (4 * np.pi * 1.2**2)))


def run(regressor, seed=0, valid=None, x=None, **kwargs):
    x = make_scene(seed) if x is None else x
    z = x + np.random.default_rng([seed, 1]).standard_normal(x.shape).astype(np.float32)
    valid = np.ones(x.shape, bool) if valid is None else valid

    def part_of(image, part):
        return tuple(plane[part] for plane in regressor(image))

    mean, std, found = check_answer(z, valid, *regressor(z), part_of, seed=seed, **kwargs)
    return z, x, mean, std, found


@pytest.fixture
def without_terms(monkeypatch):
    """Leave the terms of scales out: what follows is tested alone."""
    monkeypatch.setattr(check, "fit_expansion", lambda probes, correlation: fit_expansion([], correlation))


def truths(z, x, mean, table):
    """True errors of input and result in the bins of a table."""
    brightness = local_mean(z + mean, np.ones(z.shape, bool))
    place = np.digitize(brightness, [*table["low"], np.inf]) - 1
    bins = [place == i for i in range(len(table))]
    return [np.sqrt([np.mean(e[b] ** 2) for b in bins]) for e in (z - x, z + mean - x)]


def test_table():
    z, x, mean, _, found = run(wiener)
    table = found.table
    assert table.colnames == [
        *("low", "high", "n_pixels", "rms_input", "rms", "rms_err", "factor", "width_factor", "bias"),
    ]
    assert table["n_pixels"].sum() == z.size
    assert np.array_equal(table["low"][1:], table["high"][:-1])
    true = truths(z, x, mean, table)[1]
    many = table["n_pixels"] > 1000
    assert many.sum() >= 3
    assert table["rms"][many] == pytest.approx(true[many], rel=0.15)
    assert np.all(np.abs(table["rms"] - true)[many] < 4 * np.hypot(table["rms_err"], 0.01)[many])


@pytest.mark.usefixtures("without_terms")
@pytest.mark.parametrize("gain", [1.0, 1.5, 3.0, -0.5])
def test_nothing_is_worse_than_the_input(gain):
    z, x, mean, std, found = run(lambda z: wiener(z, gain))
    before, after = truths(z, x, mean, found.table)
    many = found.table["n_pixels"] >= 500
    assert np.all(after[many] <= 1.01 * before[many])
    sky = gaussian_filter(x, 6) < 0.01
    if gain > 1:  # too much of a right residual
        assert found.table["factor"][0] == pytest.approx(1 / gain, abs=0.08)
    if gain < 3:
        error = np.sqrt(np.mean((z + mean - x)[sky] ** 2))
        assert np.sqrt(np.mean(std[sky] ** 2)) == pytest.approx(error, rel=0.2)


@pytest.mark.usefixtures("without_terms")
@pytest.mark.parametrize("width", [0.5, 1, 2])
def test_width_is_calibrated(width):
    z, x, mean, std, found = run(lambda z: wiener(z, width=width), x=np.zeros(SHAPE, np.float32))
    covered = np.abs(z + mean - x) < std
    assert found.table["width_factor"][0] == pytest.approx(1 / width, rel=0.05)
    assert covered.mean() == pytest.approx(0.68, abs=0.03)


def test_a_good_answer_stays():
    z, x, mean, _, found = run(wiener)
    assert found.table["factor"][0] > 0.995
    assert np.mean((z + mean - x) ** 2) <= 1.005 * np.mean((gaussian_filter(z, 1.2) - x) ** 2)


@pytest.mark.parametrize("number", [4, 60])
def test_bias_of_the_sky_is_taken_out(number):
    def biased(z):
        mean, std = wiener(z)
        return mean + np.float32(0.1), std

    z, x, mean, _, found = run(biased, x=make_scene(number=number))
    noise = (z - x)[x < 0.1].mean()
    assert found.correction.sky == pytest.approx(0.1 - noise, abs=0.03)  # wings of sources count too
    sky = (
        x < 0.1 if number == 4 else maximum_filter(x, 21) < 0.1
    )  # in a crowd sky beside sources is left alone
    assert abs((z + mean - x)[sky].mean()) < 0.03
    assert found.record()["sky_bias"] == pytest.approx(found.correction.sky, abs=1e-4)


def test_bias_of_the_sky_is_not_taken_out_of_fluxes():
    x = make_scene()
    answer = Answer(x, np.ones(SHAPE, bool), np.zeros_like(x), np.full_like(x, 0.1))
    changed = Correction(n_pixels=20, sky=0.1).apply(answer)[0]
    near, apart = maximum_filter(x, 17) > 2, maximum_filter(x, 27) < 0.1
    assert np.all(changed[near] == 0)
    assert changed[apart] == pytest.approx(-0.1)


def test_holes_do_not_count():
    valid = np.ones(SHAPE, bool)
    valid[:, 100:110] = False
    x = make_scene()

    def with_holes(fill):
        def regressor(z):
            mean, std = wiener(np.where(valid, z, 0))
            return np.where(valid, mean, fill), np.where(valid, std, fill)

        return run(regressor, valid=valid, x=x)

    one, two = with_holes(0.1), with_holes(7.0)
    assert np.array_equal(one[2][valid], two[2][valid])
    assert np.all(two[2][~valid] == 7)
    assert np.array_equal(one[4].table["rms"], two[4].table["rms"])
    assert one[4].table["n_pixels"].sum() == valid.sum()


def test_parts_of_a_large_frame(monkeypatch):
    whole = run(wiener)[4]
    monkeypatch.setattr(check, "WHOLE", 100)
    monkeypatch.setattr(check, "PART", 64)
    monkeypatch.setattr(check, "SHARE", 2.0)
    z, _, mean, _, parts = run(wiener)
    assert parts.table["n_pixels"].sum() == z.size
    difference = (parts.table["rms"] - whole.table["rms"]) / np.hypot(
        parts.table["rms_err"], whole.table["rms_err"]
    )
    assert np.all(np.abs(difference) < 4)
    monkeypatch.setattr(
        check, "_apply", lambda correction, expansion, answer: correction.apply(expansion.apply(answer))[:2]
    )
    assert mean == pytest.approx(run(wiener)[2], abs=1e-5)


def test_regions():
    regions = np.zeros(SHAPE, int)
    regions[:128], regions[128:, :128] = 1, 2
    found = run(wiener, regions=regions)[4]
    assert list(found.regions["region"]) == [0, 1, 2]
    assert list(found.regions["n_pixels"]) == [128 * 128, 128 * 256, 128 * 128]


def test_same_seed_same_numbers():
    one, two, other = (run(wiener, judgement=None)[4].table for _ in range(3))
    assert np.array_equal(one["rms"], two["rms"])
    assert np.array_equal(one["rms"], other["rms"])


def test_harm_is_measured():
    assert run(wiener, x=np.zeros(SHAPE, np.float32))[4].harm() == ""
    text = run(lambda z: wiener(z, -1.0))[4].harm()
    assert "wrong by" in text
    assert "measured on the image itself" in text


def make_table(factors):
    table = run(wiener)[4].table[: len(factors)]
    table["factor"] = factors
    table["n_pixels"] = 1000
    return table


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ([1, 1, 1, 1], "help at every brightness"),
        ([1, 1, 1, 0.2], "Above 10 sigma the networks do not help"),
        ([1, 1, 0.3, 0.2], "Above 3 sigma the networks do not help"),
        ([0.1, 0.1, 0.3, 0.2], "The networks do not help on this camera"),
        ([1, 1, 0.7, 1], "less from 3 sigma on"),
        ([1, 0.2, 1, 1], "less from 1 sigma on"),
    ],
)
def test_sentence(factors, words):
    assert words in sentence(make_table(factors))


def test_few_pixels_say_nothing():
    table = make_table([1, 1])
    table["n_pixels"] = 10
    assert "too few pixels" in sentence(table)


def test_pooled_tables():
    one, two = run(wiener, seed=1)[4].table, run(wiener, seed=2)[4].table
    pooled = pool_tables([one, two])
    assert pooled["n_pixels"].sum() == 2 * np.prod(SHAPE)
    assert pooled["rms"][0] == pytest.approx((one["rms"][0] + two["rms"][0]) / 2, rel=0.05)
    assert pooled["rms_err"][0] < min(one["rms_err"][0], two["rms_err"][0])
    with pytest.raises(ValueError, match="tables must not be empty"):
        pool_tables([])


def test_judgement_is_kept():
    noise = judge_noise(np.random.default_rng(0).standard_normal(SHAPE), np.ones(SHAPE, bool))
    assert run(wiener, judgement=noise)[4].noise is noise
