# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the comparison of images.
"""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import QTable
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import convolve

from astro_ddpm import EnhancedCCDData
from astro_ddpm.evaluation import image_metrics, power_ratio, power_spectrum

KERNEL = np.outer([1, 2, 1], [1, 2, 1]) / 16
WITH_UNIT = {"mae": 1, "mse": 2}  # and its power


def images(shape=(40, 50), noise=5.0, seed=0):
    """Make an image and a reference."""
    rng = np.random.default_rng(seed)
    reference = 100 * convolve(rng.standard_normal(shape), KERNEL)
    return reference + noise * rng.standard_normal(shape), reference


def sinusoid(shape, fy, fx, amplitude=1.0):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return amplitude * np.cos(2 * np.pi * (fy * y + fx * x) + 0.3)


def transfer(frequency_y, frequency_x):
    """Fourier transform of KERNEL."""
    return (np.cos(np.pi * frequency_y) * np.cos(np.pi * frequency_x)) ** 2


class TestImageMetrics:
    def test_by_hand(self):
        reference = np.zeros((12, 12))
        reference[::2] = 8
        metrics = image_metrics(reference + np.tile([1, -3], 6), reference)
        assert metrics["mae"] == 2
        assert metrics["mse"] == 5
        assert_allclose(metrics["psnr"], 10 * np.log10(64 / 5))
        assert metrics["n_pixels"] == 144

    def test_perfect(self):
        _, reference = images()
        metrics = image_metrics(reference, reference)
        assert metrics["mae"] == metrics["mse"] == metrics["spectral_mse"] == 0
        assert metrics["psnr"] == np.inf
        assert_allclose(metrics["ssim"], 1, rtol=1e-12)

    def test_ssim_of_constant_shift(self):
        # contrast and structure are the same, so the luminance term is left
        reference = np.full((20, 20), 3.0)
        ssim = image_metrics(reference + 2, reference, data_range=10)["ssim"]
        c1 = 0.1**2
        assert_allclose(ssim, (2 * 3 * 5 + c1) / (3**2 + 5**2 + c1), rtol=1e-12)

    @pytest.mark.parametrize("noise", [2.0, 50.0])
    def test_torchmetrics(self, noise):
        torchmetrics = pytest.importorskip("torchmetrics.functional.image")
        torch = pytest.importorskip("torch")
        image, reference = images(noise=noise)
        ours = image_metrics(image, reference, data_range=150)
        tensors = [torch.from_numpy(values)[None, None] for values in (image, reference)]
        psnr = torchmetrics.peak_signal_noise_ratio(*tensors, data_range=150.0)
        _, similarity = torchmetrics.structural_similarity_index_measure(
            *tensors, data_range=150.0, return_full_image=True
        )
        assert_allclose(ours["psnr"], psnr.item(), rtol=1e-5)
        # theirs is averaged over the border as well, where the image is reflected
        assert_allclose(ours["ssim"], similarity[0, 0, 5:-5, 5:-5].mean().item(), rtol=1e-10)

    @pytest.mark.parametrize("factor", [0.5, 3.0])
    def test_spectral_mse_of_a_factor(self, factor):
        _, reference = images()
        metrics = image_metrics(factor * reference + 20, reference)
        assert_allclose(metrics["spectral_mse"], np.log10(factor**2) ** 2, rtol=1e-9)

    def test_spectral_mse_is_of_the_power_spectrum(self):
        image, reference = images()
        ratio = power_spectrum(image)["power"] / power_spectrum(reference)["power"]
        assert_allclose(image_metrics(image, reference)["spectral_mse"], np.mean(np.log10(ratio) ** 2))

    def test_structure_in_the_wrong_place(self):
        # what the docstring says of both errors
        reference = np.random.default_rng(0).standard_normal((64, 64))
        image = np.random.default_rng(1).standard_normal((64, 64))
        metrics = image_metrics(image, reference)
        assert metrics["mse"] > 1.8
        assert metrics["spectral_mse"] < 0.05

    def test_default_range(self):
        image, reference = images()
        explicit = image_metrics(image, reference, data_range=np.ptp(reference))
        assert explicit == image_metrics(image, reference)

    def test_constant_reference(self):
        rng = np.random.default_rng(0)
        metrics = image_metrics(rng.standard_normal((20, 20)), np.ones((20, 20)))
        assert np.isnan(metrics["psnr"])
        assert np.isnan(metrics["ssim"])
        assert metrics["mse"] > 0

    def test_units(self):
        image, reference = images()
        expected = image_metrics(image, reference)
        metrics = image_metrics(
            CCDData(1e3 * image, unit="mJy"), reference * u.Jy, data_range=1e6 * np.ptp(reference) * u.uJy
        )
        for name, value in metrics.items():
            power = WITH_UNIT.get(name)
            assert (value.unit == u.Jy**power) if power else not isinstance(value, u.Quantity)
            assert_allclose(getattr(value, "value", value), expected[name], rtol=1e-6)
        assert image_metrics(CCDData(image, unit=""), reference) == expected

    def test_table_of_many(self, tmp_path):
        rows = [image_metrics(*(values * u.adu for values in images(seed=seed))) for seed in range(3)]
        table = QTable(rows=rows)
        assert table["mse"].unit == u.adu**2
        table.write(tmp_path / "metrics.ecsv")
        assert_array_equal(QTable.read(tmp_path / "metrics.ecsv")["mse"], table["mse"])

    def test_files(self, tmp_path):
        image, reference = images()
        fits.writeto(tmp_path / "image.fits", image)
        metrics = image_metrics(tmp_path / "image.fits", fits.PrimaryHDU(reference))
        assert metrics == image_metrics(image, reference)


class TestMaskedMetrics:
    def test_every_way_to_mask(self):
        image, reference = images()
        mask = np.random.default_rng(1).random(image.shape) < 0.002
        expected = image_metrics(image, reference, mask=mask)
        bad = np.where(mask, np.nan, 1.0)
        infinite = np.where(mask, np.inf, image)
        for pair in (
            (image * bad, reference),
            (image, reference * bad),
            (infinite, reference),
            (CCDData(infinite, mask=mask, unit=""), reference),
            (image, np.ma.array(np.where(mask, 1e9, reference), mask=mask)),
        ):
            assert image_metrics(*pair) == expected
        assert expected["n_pixels"] == (~mask).sum()
        assert_allclose(expected["mse"], np.mean((image - reference)[~mask] ** 2), rtol=1e-12)
        assert_allclose(expected["mae"], np.mean(np.abs(image - reference)[~mask]), rtol=1e-12)

    def test_ssim_leaves_out_windows_with_holes(self):
        # what is masked must not matter, and the rest is as in the image without it
        image, reference = images()
        mask = np.zeros(image.shape, bool)
        mask[:, 30:] = True
        whole = image_metrics(image, reference, mask=mask, data_range=100)["ssim"]
        part = image_metrics(image[:, :30], reference[:, :30], data_range=100)["ssim"]
        assert_allclose(whole, part, rtol=1e-12)

    def test_no_whole_window(self):
        metrics = image_metrics(*images((10, 40)))
        assert np.isnan(metrics["ssim"])
        assert np.isfinite(metrics["psnr"])

    def test_nothing_left(self):
        metrics = image_metrics(*(values * u.adu for values in images()), mask=True)
        assert metrics.pop("n_pixels") == 0
        assert all(np.isnan(value) for value in metrics.values())
        assert metrics["mse"].unit == u.adu**2

    def test_input_stays(self):
        image, reference = images()
        image[3, 4] = np.nan
        copies = image.copy(), reference.copy()
        for function in (image_metrics, power_ratio):
            function(image, reference)
        assert_array_equal(image, copies[0])
        assert_array_equal(reference, copies[1])


@pytest.mark.parametrize("function", [image_metrics, power_ratio])
class TestErrors:
    def test_shapes(self, function):
        image, reference = images()
        with pytest.raises(ValueError, match=r"image must have the shape \(40, 49\) of reference"):
            function(image, reference[:, 1:])
        with pytest.raises(ValueError, match="image must be two-dimensional"):
            function(image[0], reference)
        with pytest.raises(ValueError, match="reference must be two-dimensional"):
            function(image, reference[0])
        with pytest.raises(ValueError, match="mask must be broadcastable"):
            function(image, reference, mask=np.zeros(3, bool))
        with pytest.raises(ValueError, match="images need two pixels along each axis"):
            function(image[:1], reference[:1])

    def test_units(self, function):
        image, reference = images()
        with pytest.raises(u.UnitConversionError):
            function(image * u.adu, reference)
        with pytest.raises(u.UnitConversionError):
            function(image * u.adu, reference * u.Jy)

    def test_numbers(self, function):
        image, reference = images()
        with pytest.raises(TypeError, match="image must hold real numbers, not complex"):
            function(image * 1j, reference)


def test_samples_are_no_image():
    image, reference = images()
    samples = np.stack([image, image])
    with pytest.raises(ValueError, match=r"image must be two-dimensional .* not of shape \(2, 40, 50\)"):
        image_metrics(samples, reference)


def test_data_range():
    image, reference = images()
    with pytest.raises(ValueError, match="data_range must be positive, not 0"):
        image_metrics(image, reference, data_range=0)
    with pytest.raises(TypeError, match="data_range must have a unit if the images have one"):
        image_metrics(image * u.adu, reference * u.adu, data_range=5)
    with pytest.raises(TypeError, match="data_range must have a unit if the images have one"):
        image_metrics(image, reference, data_range=5 * u.adu)


def mean_power(make, n=60, **options):
    """Average the power spectra of many images, and return the error of the mean."""
    tables = [power_spectrum(make(np.random.default_rng(seed)), **options) for seed in range(n)]
    powers = np.array([table["power"] for table in tables])
    return tables[0], powers.mean(axis=0), powers.std(axis=0, ddof=1) / np.sqrt(n)


class TestPowerSpectrum:
    @pytest.mark.parametrize("window", ["hann", "boxcar", ("kaiser", 6.0)])
    @pytest.mark.parametrize("shape", [(48, 48), (40, 61)])
    def test_white_noise_is_flat(self, window, shape):
        _, power, error = mean_power(lambda rng: rng.normal(7, 3, shape), window=window)
        assert np.all(np.abs(power - 9)[2:] < 4.5 * error[2:])

    def test_correlated_noise(self):
        # |K|^2 averaged over the modes of each bin, without edges
        shape = (48, 48)
        table, power, error = mean_power(
            lambda rng: convolve(rng.standard_normal(shape), KERNEL, mode="wrap"), window="boxcar", n_bins=8
        )
        frequency = np.fft.fftfreq(48)
        radius = np.hypot(frequency[:, None], frequency)
        bins = [(radius > low) & (radius <= low + 1 / 16) for low in np.arange(8) / 16]
        expected = np.array([(transfer(frequency[:, None], frequency) ** 2)[pick].mean() for pick in bins])
        assert np.all(np.abs(power - expected) < 4.5 * error)
        assert_array_equal(table["n_modes"], [pick.sum() for pick in bins])
        assert_allclose(table["frequency"].value, [radius[pick].mean() for pick in bins])

    def test_correlated_noise_of_a_part(self):
        # edges that do not match, and a hole: the window does not tilt the spectrum
        hole = np.zeros((48, 48), bool)
        hole[20:26, 25:30] = True
        table, power, error = mean_power(
            lambda rng: convolve(rng.standard_normal((60, 60)), KERNEL)[6:-6, 6:-6], n_bins=12, mask=hole
        )
        f = table["frequency"].value
        angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)[:, None]
        expected = np.mean(transfer(f * np.sin(angle), f * np.cos(angle)) ** 2, axis=0)
        middle = slice(2, 8)
        assert np.all(np.abs(power - expected)[middle] < 4.5 * error[middle] + 0.05 * expected[middle])

    def test_sinusoid(self):
        image = sinusoid((64, 64), 12 / 64, 5 / 64, amplitude=4)
        table = power_spectrum(image, window="boxcar")
        peak = int(np.argmax(table["power"]))
        assert peak == 12  # a frequency of 13 / 64 belongs to the 13th bin
        # the sum over all modes is the sum of the squares
        assert_allclose(table["power"][peak] * table["n_modes"][peak], 64**2 * 4**2 / 2, rtol=1e-10)
        assert np.all(np.delete(table["power"], peak) < 1e-20)

    def test_window_stops_leakage(self):
        image = sinusoid((64, 64), 6.5 / 64, 0)
        far = slice(14, None)
        hann, none = (power_spectrum(image, window=window)["power"] for window in ("hann", "boxcar"))
        assert hann[far].max() < 1e-4 * hann.max()
        assert none[far].max() > 1e-4 * none.max()

    @pytest.mark.parametrize("size", [7, 48, 49, 100])
    def test_modes_of_bins(self, size):
        # bins of 1 / size: the modes of an axis lie on upper edges
        table = power_spectrum(np.random.default_rng(0).standard_normal((size, size)), n_bins=size // 2)
        frequency = np.fft.fftfreq(size)
        radius = np.hypot(frequency[:, None], frequency)
        assert table["n_modes"].sum() == np.sum((radius > 0) & (radius <= 0.5))
        if size % 2 == 0:
            assert table["n_modes"][0] == 4

    def test_level_and_scale(self):
        image, _ = images()
        power = power_spectrum(image)["power"]
        assert_allclose(power_spectrum(3 * image + 1e4)["power"], 9 * power, rtol=1e-9)
        assert_allclose(power_spectrum(image[::-1].T, n_bins=20)["power"][5:], power[5:], rtol=0.2)

    def test_holes_keep_the_level_of_white_noise(self):
        holes = np.random.default_rng(9).random((48, 48)) < 0.3
        _, power, error = mean_power(
            lambda rng: np.where(holes, np.nan, rng.standard_normal((48, 48))), n_bins=8
        )
        assert np.all(np.abs(power - 1)[1:] < 4.5 * error[1:])

    def test_unit_and_metadata(self, tmp_path):
        image, _ = images()
        table = power_spectrum(CCDData(image, unit="adu"), n_bins=5)
        assert table["power"].unit == u.adu**2
        assert table["frequency"].unit == u.cycle / u.pix
        assert table.meta["window"] == "hann"
        table.write(tmp_path / "power.ecsv")
        read = QTable.read(tmp_path / "power.ecsv")
        assert_array_equal(read["power"], table["power"])
        assert read.meta == table.meta

    def test_bins_without_modes(self):
        table = power_spectrum(np.random.default_rng(0).standard_normal((8, 8)), n_bins=16)
        assert_array_equal(np.isnan(table["power"]), table["n_modes"] == 0)
        assert np.any(table["n_modes"] == 0)

    def test_nothing_left(self):
        assert np.isnan(power_spectrum(images()[0], mask=True)["power"]).all()

    def test_errors(self):
        image, _ = images()
        with pytest.raises(ValueError, match="image must be two-dimensional"):
            power_spectrum(image[0])
        with pytest.raises(ValueError, match="n_bins must be at least 1, not 0"):
            power_spectrum(image, n_bins=0)
        with pytest.raises(ValueError, match=r"nonsense|Unknown window type"):
            power_spectrum(image, window="nonsense")


class TestPowerRatio:
    def test_honest_samples(self):
        rng = np.random.default_rng(0)
        scene = 3 * convolve(rng.standard_normal((64, 64)), KERNEL)
        samples, truth = scene + rng.standard_normal((12, 64, 64)), scene + rng.standard_normal((64, 64))
        table = power_ratio(samples, truth, n_bins=8)
        assert np.all(np.abs(table["ratio"] - 1) < 5 * table["ratio_err"])
        assert table.meta["n_samples"] == 12

    def test_columns(self):
        image, reference = images()
        samples = image + np.random.default_rng(1).standard_normal((3, *image.shape))
        table = power_ratio(samples * u.mJy, reference * u.Jy, n_bins=6)
        powers = [power_spectrum(1e-3 * sample, n_bins=6)["power"] for sample in samples]
        expected = power_spectrum(reference, n_bins=6)
        assert_allclose(table["power"].to_value(u.Jy**2), np.mean(powers, axis=0), rtol=1e-9)
        assert_allclose(table["power_err"].to_value(u.Jy**2), np.std(powers, axis=0, ddof=1), rtol=1e-9)
        assert_allclose(table["power_reference"].to_value(u.Jy**2), expected["power"], rtol=1e-9)
        assert_allclose(table["ratio"], np.mean(powers, axis=0) / expected["power"], rtol=1e-9)
        assert_allclose(table["ratio_err"], table["power_err"] / table["power_reference"], rtol=1e-9)
        assert_array_equal(table["frequency"], expected["frequency"])
        assert all(table[name].info.description for name in table.colnames)

    def test_smoothing(self):
        image, _ = images((64, 64))
        table = power_ratio(convolve(image, KERNEL, mode="wrap"), image, window="boxcar")
        low, high = table["ratio"][[0, -1]]
        assert_allclose(low, transfer(1 / 64, 0) ** 2)
        assert high < 0.1
        assert_allclose(table["correlation"][0], 1, atol=0.01)

    def test_correlation(self):
        # the mean of m samples of the variance S + 1 and a truth of the same
        rng = np.random.default_rng(0)
        scene = 2 * rng.standard_normal((96, 96))
        samples, truth = scene + rng.standard_normal((5, 96, 96)), scene + rng.standard_normal((96, 96))
        table = power_ratio(samples, truth, n_bins=3, window="boxcar")
        assert_allclose(table["correlation"], 4 / np.sqrt((4 + 1 / 5) * (4 + 1)), atol=0.05)

    def test_of_itself_upside_down(self):
        image, _ = images()
        table = power_ratio(-image, image)
        assert_allclose(table["ratio"], 1, rtol=1e-12)
        assert_allclose(table["correlation"], -1, rtol=1e-12)
        assert np.isnan(table["ratio_err"]).all()

    def test_enhanced(self):
        image, reference = images()
        samples = image + np.random.default_rng(1).standard_normal((3, *image.shape))
        mask = np.zeros(image.shape, bool)
        mask[5, 6] = True
        for treatment, left_out in (("fill", None), ("propagate", mask)):
            meta = {"DDPMMASK": treatment}
            enhanced = EnhancedCCDData(image, unit="adu", samples=samples, mask=mask, meta=meta)
            table = power_ratio(enhanced, reference * u.adu)
            expected = power_ratio(samples * u.adu, reference * u.adu, mask=left_out)
            assert_array_equal(table["power_err"], expected["power_err"])
        of_mean = power_ratio(enhanced.data * u.adu, reference * u.adu)
        assert np.isnan(of_mean["ratio_err"]).all()
