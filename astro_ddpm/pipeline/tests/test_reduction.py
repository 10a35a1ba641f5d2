# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the step between those of ccdproc.
"""

import warnings

import ccdproc
import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.utils.exceptions import AstropyUserWarning
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter

from astro_ddpm import EnhancedCCDData, __version__, enhance
from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.noise import frame, sigma_from_gain
from astro_ddpm.pipeline import enhance_ccd
from astro_ddpm.pipeline.reduction import prepare_ccd
from astro_ddpm.tests.helpers import SIGMA, make_image, toy_model

RAUNET = toy_model(samples=False)
DDPM = toy_model()
# The networks are not trained: a check would find that they do harm.
OPTIONS = {"model": DDPM, "n_samples": 2, "steps": 2, "seed": 1, "verify": False}
GAIN = 2.0 * u.electron / u.adu
READ_NOISE = 5.0 * u.electron
SKY = 200.0


@pytest.fixture(scope="module")
def field():
    return make_galaxy_field((96, 96), n_galaxies=3, n_stars=2, seed=5, bad_columns=0, sky_level=SKY)


@pytest.fixture
def bare(field):
    """The image of the field without its uncertainty."""
    image = field.image.copy()
    image.uncertainty = None
    return image


def prepare(ccd, gain=None, read_noise=None, saturation=None, **options):
    return prepare_ccd(ccd, gain, read_noise, saturation, **options)


def sigma(prepared):
    return prepared.uncertainty.array


class TestStep:
    def test_is_enhance_where_nothing_is_missing(self):
        ccd = make_image()
        result = enhance_ccd(ccd, **OPTIONS)
        expected = enhance(ccd, **OPTIONS)
        assert isinstance(result, EnhancedCCDData)
        assert_array_equal(result.samples, expected.samples)
        assert repr(result.meta) == repr(expected.meta)

    def test_input_is_not_changed(self, bare):
        bare.meta["SATURATE"] = 500.0
        before = bare.copy()
        enhance_ccd(bare, model=RAUNET, verify=False)
        assert_array_equal(bare.data, before.data)
        assert_array_equal(bare.mask, before.mask)
        assert bare.uncertainty is None
        assert repr(bare.meta) == repr(before.meta)

    def test_everything_is_carried(self, bare):
        bare.flags = np.eye(96, dtype=np.int16)
        result = enhance_ccd(bare, model=RAUNET, verify=False)
        assert result.unit == u.adu
        assert_array_equal(result.flags, bare.flags)
        assert_array_equal(result.psf, bare.psf)
        assert repr(result.wcs) == repr(bare.wcs)
        assert result.meta["OBJECT"] == bare.meta["OBJECT"]

    def test_wrong_class(self):
        with pytest.raises(TypeError, match="ccd must be a CCDData"):
            enhance_ccd(np.ones((8, 8)))

    def test_between_steps_of_ccdproc(self, field):
        bias = CCDData(np.full((96, 96), 300.0), unit="adu")
        flat = CCDData(np.tile(np.linspace(0.8, 1.2, 96), (96, 1)), unit="adu")
        raw = CCDData((field.image.data + SKY) * flat.data + 300, unit="adu", meta=field.image.header)
        ccd = ccdproc.subtract_bias(raw, bias)
        ccd = ccdproc.create_deviation(ccd, gain=GAIN, readnoise=READ_NOISE)
        ccd = ccdproc.flat_correct(ccd, flat)
        ccd = ccdproc.gain_correct(ccd, GAIN)
        deep = enhance_ccd(ccdproc.trim_image(ccd[:, 16:80]), **OPTIONS, background="photutils")
        assert (deep.shape, deep.unit, deep.uncertainty.unit) == ((96, 64), u.electron, u.electron)
        assert deep.meta["DDPMNOIS"] == "smoothed"
        done = ccdproc.subtract_bias(deep, CCDData(np.ones((96, 64)), unit="electron"))
        assert_allclose(done.samples, deep.samples - 1, rtol=1e-6)


class TestNoise:
    def test_of_an_image_with_its_sky(self, field, bare):
        bare.data = bare.data + SKY
        prepared, record = prepare(bare, background="photutils")
        assert record == {"noise": "gain", "gain": 2, "read_noise": 5, "saturation": 65535}
        assert_allclose(np.median(sigma(prepared) / field.image.uncertainty.array), 1, rtol=0.01)
        assert_array_equal(sigma(prepared), sigma_from_gain(bare.data, 2, 5))

    def test_of_an_image_without_its_sky(self, field, bare):
        prepared, _ = prepare(bare)
        ratio = sigma(prepared) / field.image.uncertainty.array
        assert_allclose(np.median(ratio), 1, rtol=0.04)
        bright = field.truth > 500
        assert_allclose(np.median(ratio[bright]), 1, rtol=0.06)

    @pytest.mark.parametrize("background", [None, "photutils"])
    def test_does_not_depend_on_the_unit(self, bare, background):
        bare.data, bare.psf = bare.data + (SKY if background else 0), None
        in_adu, _ = prepare(bare, background=background)
        in_electron, record = prepare(ccdproc.gain_correct(bare, GAIN), background=background)
        assert_allclose(sigma(in_electron), 2 * sigma(in_adu), rtol=1e-6)
        assert "gain" not in record

    def test_read_noise_is_the_least_it_can_be(self, bare):
        prepared, _ = prepare(bare, read_noise=100)
        assert np.all(sigma(prepared) >= 50)

    @pytest.mark.parametrize("gain", [120, 300])
    def test_gain_that_is_a_setting(self, bare, gain):
        bare.data, bare.meta["GAIN"] = bare.data + SKY, gain
        with pytest.warns(AstropyUserWarning, match="perhaps a setting of the camera, is not used"):
            prepared, record = prepare(bare, background="photutils")
        assert prepared.uncertainty is None
        assert "gain" not in record
        bare.meta["EGAIN"] = 2.0
        assert prepare(bare, background="photutils")[1]["gain"] == 2

    @pytest.mark.parametrize("keyword", ["NCOMBINE", "NIMAGES"])
    def test_mean_of_frames(self, field, keyword):
        rng, scene = np.random.default_rng(2), np.maximum(field.truth, 0) + SKY
        frames = [rng.poisson(2 * scene) / 2 + rng.normal(0, 2.5, scene.shape) for _ in range(9)]
        ccd = CCDData(np.mean(frames, axis=0), unit="adu", meta={"GAIN": 2.0, "RDNOISE": 5.0, keyword: 9})
        prepared, record = prepare(ccd, background="photutils")
        ratio = sigma(prepared) / np.sqrt((scene / 2 + 2.5**2) / 9)
        assert_allclose(np.median(ratio), 1, rtol=0.01)
        assert_allclose(ratio, 1, rtol=0.2)  # in the cores of stars, which are smoothed
        assert (record["gain"], record["read_noise"]) == (18, 15)

    @pytest.mark.parametrize(("n", "rounded"), [(3, True), (4, False), (9, False)])
    def test_scatter_of_combined_frames(self, field, n, rounded):
        rng, scene = np.random.default_rng(2), np.maximum(field.truth, 0) + SKY
        frames = [rng.poisson(2 * scene) / 2 + rng.normal(0, 2.5, scene.shape) for _ in range(n)]
        frames = [CCDData(np.round(frame) if rounded else frame, unit="adu") for frame in frames]
        combined = ccdproc.combine(frames, method="average")
        with pytest.warns(AstropyUserWarning, match="scatter of a few values in each pixel"):
            prepared, record = prepare(combined, background="photutils")
        assert record["noise"] == "scatter of few frames smoothed"
        truth, sky = np.sqrt((scene / 2 + 2.5**2) / n), scene < SKY + 5
        assert_allclose(np.median(sigma(prepared)[sky] / truth[sky]), 1, rtol=0.07)
        assert np.std((sigma(prepared) / truth)[sky]) < 0.15

    def test_noise_that_is_known_is_no_scatter(self, field):
        assert "noise" not in prepare(field.image)[1]

    def test_bad_pixels_do_not_spread(self, bare):
        clean, _ = prepare(bare)
        bare.data[20, 20], bare.data[40, 40] = np.nan, 1e6
        bare.mask = bare.data > 1e5
        dirty, _ = prepare(bare)
        assert_allclose(sigma(dirty), sigma(clean), rtol=0.1)

    @pytest.mark.parametrize(
        ("gain", "read_noise"),
        [
            (1.5, 4),
            (1.5 * u.electron / u.adu, 4 * u.electron),
            ("MYGAIN", "MYNOISE"),
            (ccdproc.Keyword("MYGAIN", u.electron / u.adu), ccdproc.Keyword("MYNOISE", u.electron)),
        ],
        ids=["number", "quantity", "keyword", "Keyword"],
    )
    def test_forms_of_gain_and_read_noise(self, bare, gain, read_noise):
        bare.meta["MYGAIN"], bare.meta["MYNOISE"] = 1.5, 4.0
        _, record = prepare(bare, gain, read_noise)
        assert (record["gain"], record["read_noise"]) == (1.5, 4)

    def test_gain_of_a_camera_with_a_gain_setting(self, bare):
        bare.meta["GAIN"], bare.meta["EGAIN"] = 139, 0.8
        assert prepare(bare)[1]["gain"] == 0.8

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"gain": 0}, "gain must be a positive number"),
            ({"gain": -1}, "gain must be a positive number"),
            ({"gain": "NOGAIN"}, "gain 'NOGAIN' is not a keyword"),
            ({"gain": [1, 2]}, "gain must be a positive number"),
            ({"gain": "OBJECT"}, "gain, OBJECT in the header, must be"),
            ({"saturation": "NOLEVEL"}, "saturation 'NOLEVEL' is not a keyword"),
            ({"read_noise": np.nan}, "read_noise must be a positive number"),
        ],
    )
    def test_bad_values(self, bare, options, match):
        with pytest.raises(ValueError, match=match):
            enhance_ccd(bare, model=RAUNET, **options)

    def test_bad_units(self, bare):
        with pytest.raises(u.UnitConversionError):
            enhance_ccd(bare, gain=2 * u.adu / u.electron, model=RAUNET)

    def test_cannot_be_made(self, bare):
        for keyword in ("GAIN", "RDNOISE"):
            del bare.meta[keyword]
        assert prepare(bare)[0].uncertainty is None
        with pytest.raises(ValueError, match="it needs the gain"):
            prepare(bare, read_noise=5)
        with pytest.raises(ValueError, match="it needs the read noise"):
            prepare(bare, gain=2, background=SKY)
        with pytest.raises(ValueError, match="in adu or electron, not in 'Jy'"):
            prepare(CCDData(bare.data, unit="Jy"), gain=2)
        with pytest.warns(AstropyUserWarning, match="the image has no uncertainty"):
            result = enhance_ccd(bare, model=RAUNET, verify=False)
        assert result.meta["DDPMNOIS"] == "estimated"

    def test_given_noise_is_used(self, bare):
        result = enhance_ccd(bare, model=RAUNET, uncertainty=SIGMA, verify=False)
        assert result.meta["DDPMNOIS"] == "given"


class TestNoiseOfEachPixelAlone:
    """Noise like that of ``create_deviation``."""

    @pytest.fixture
    def exposure(self, bare):
        """Return an exposure with its sky and the noise that ccdproc makes."""
        bare.data = bare.data + SKY
        return ccdproc.create_deviation(bare, gain=GAIN, readnoise=READ_NOISE)

    def test_is_smoothed(self, field, exposure):
        prepared, record = prepare(exposure, background="photutils")
        assert record["noise"] == "smoothed"
        before, after = (sigma(each) / field.image.uncertainty.array for each in (exposure, prepared))
        assert np.std(after) < 0.5 * np.std(before)
        assert_allclose(np.median(after), 1, rtol=0.01)
        assert_array_equal(sigma(exposure), exposure.uncertainty.array)  # which is left as it was

    def test_uncertainty_left_in_adu(self, exposure):
        exposure.data, exposure.unit = exposure.data * 2, u.electron
        with pytest.warns(AstropyUserWarning, match="multiplied by the gain"):
            prepared, record = prepare(exposure, background="photutils")
        assert record["noise"] == "multiplied by gain, smoothed"
        assert prepared.uncertainty.unit == u.electron

    @pytest.mark.parametrize("class_", [VarianceUncertainty, InverseVariance])
    def test_every_class(self, exposure, class_):
        expected = sigma(prepare(exposure, background="photutils")[0])
        exposure.uncertainty = exposure.uncertainty.represent_as(class_)
        assert_allclose(sigma(prepare(exposure, background="photutils")[0]), expected)

    def test_invalid_pixels_take_no_part(self, exposure):
        expected = sigma(prepare(exposure, background="photutils")[0])
        exposure.data[30, 30], exposure.uncertainty.array[30, 30] = np.nan, 1e10
        smooth = sigma(prepare(exposure, background="photutils")[0])
        assert smooth[30, 30] == 1e10
        assert_allclose(np.delete(smooth, 30, axis=0), np.delete(expected, 30, axis=0), rtol=0.05)

    def test_zero_is_no_information(self, exposure):
        exposure.uncertainty.array[3, 3] = 0
        with pytest.warns(AstropyUserWarning, match="1 pixels hold no information"):
            deep = enhance_ccd(exposure, **OPTIONS, background="photutils")
        assert_array_equal(np.argwhere(deep.mask), [[3, 3]])

    def test_one_number_for_all_pixels(self, bare):
        bare.uncertainty = StdDevUncertainty(10.0)
        assert "noise" not in prepare(bare)[1]

    def test_pixels_of_every_other_row_and_column(self, exposure, monkeypatch):
        monkeypatch.setattr(frame, "PART", 48)
        exposure.mask = np.zeros(exposure.shape, bool)
        exposure.mask[::2, ::2] = True
        assert prepare(exposure, background="photutils")[1]["noise"] == "smoothed"

    def test_resampled(self, exposure):
        exposure.data, variance = gaussian_filter(exposure.data, 0.8), exposure.uncertainty.array**2
        exposure.uncertainty = StdDevUncertainty(np.sqrt(gaussian_filter(variance, 0.8)))
        enhance_ccd(exposure, **OPTIONS, background="photutils")  # does not warn

    def test_without_a_valid_pixel_or_unit(self, exposure):
        exposure.mask = np.ones(exposure.shape, bool)
        assert "noise" not in prepare(exposure)[1]
        exposure.mask, exposure.unit = None, u.Jy  # enhance refuses it
        assert "noise" not in prepare(exposure)[1]


class TestRepair:
    """An uncertainty in adu of an image in electron, as cosmicray_lacosmic of ccdproc 2.5 leaves it."""

    def test_after_cosmicray_lacosmic(self, field):
        clean = ccdproc.cosmicray_lacosmic(field.image, gain=GAIN, readnoise=READ_NOISE, gain_apply=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = enhance_ccd(clean, model=RAUNET)
        assert result.unit == u.electron
        expected = field.image.uncertainty.array * 2
        if clean.uncertainty.unit == u.adu:
            assert "the uncertainty is multiplied by the gain, 2 electron / adu" in str(caught[0].message)
            assert (result.meta["DDPMNOIS"], result.meta["DDPMGAIN"]) == ("multiplied by gain", 2)
            clean = prepare_silently(clean)
        assert_allclose(sigma(clean), expected, rtol=1e-6)

    @pytest.mark.parametrize("class_", [StdDevUncertainty, VarianceUncertainty])
    def test_every_class(self, field, class_):
        ccd = in_electron(field, 2.0, class_)
        with pytest.warns(AstropyUserWarning, match="multiplied by the gain"):
            prepared, _ = prepare(ccd)
        assert_allclose(sigma(prepared), field.image.uncertainty.array * 2, rtol=1e-6)
        assert prepared.uncertainty.unit == u.electron

    def test_unknown_gain(self, field):
        ccd = in_electron(field, 2.0)
        del ccd.meta["GAIN"]
        with pytest.raises(u.UnitConversionError, match="give the gain to repair it"):
            enhance_ccd(ccd, model=RAUNET)

    def test_data_that_were_not_multiplied(self, field):
        with pytest.raises(u.UnitConversionError, match="seem not to be multiplied by the gain"):
            enhance_ccd(in_electron(field, 1.0), model=RAUNET)

    def test_other_units_are_refused(self, field):
        ccd = in_electron(field, 2.0)
        ccd.unit = u.Jy
        with pytest.raises(u.UnitConversionError, match="cosmicray_lacosmic"):
            enhance_ccd(ccd, model=RAUNET)


def in_electron(field, factor, class_=StdDevUncertainty):
    """Turn a field into electrons, but not its uncertainty."""
    ccd = field.image.copy()
    ccd.uncertainty = ccd.uncertainty.represent_as(class_)
    ccd.data, ccd.unit = factor * ccd.data, u.electron
    return ccd


def prepare_silently(ccd):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return prepare(ccd)[0]


@pytest.mark.parametrize(
    "card", [("GAIN", "HIGH"), ("GAIN", 0), ("GAIN", "2.5 e-/ADU"), ("RDNOISE", -1), ("RDNOISE", "")]
)
def test_useless_cards_that_nobody_needs(card):
    ccd = make_image()
    for keyword in ("GAIN", "RDNOISE"):
        ccd.meta[keyword] = 2.0
    ccd.meta[card[0]] = card[1]
    assert prepare(ccd)[0].uncertainty is ccd.uncertainty


class TestSaturation:
    @pytest.fixture
    def ccd(self):
        ccd = make_image()
        ccd.meta["SATURATE"] = 200.0
        return ccd

    def test_from_the_header(self, ccd):
        expected = ccd.data >= 200
        assert 0 < expected.sum() < 60
        result = enhance_ccd(ccd, **OPTIONS)
        assert_array_equal(result.mask, expected)
        assert result.meta["DDPMSAT"] == 200

    def test_joins_the_mask(self, ccd):
        ccd.mask = np.eye(40, 36, dtype=bool)
        prepared, _ = prepare(ccd)
        assert_array_equal(prepared.mask, ccd.mask | (ccd.data >= 200))
        assert ccd.mask.sum() == 36

    @pytest.mark.parametrize("saturation", [150, 150 * u.adu, 0.15 * u.Unit("1000 adu"), "FULL"])
    def test_forms(self, ccd, saturation):
        ccd.meta["FULL"] = 150
        assert prepare(ccd, saturation=saturation)[1]["saturation"] == 150

    @pytest.mark.parametrize("value", [0.0, -1, "", "none", "65535 ADU", True])
    def test_useless_card(self, ccd, value):
        ccd.meta["SATURATE"] = value
        with pytest.warns(AstropyUserWarning, match="SATURATE in the header is .* and is not used"):
            prepared, record = prepare(ccd)
        assert prepared.mask is None
        assert "saturation" not in record

    def test_of_another_unit(self, ccd):
        ccd.meta["SATURATE"] = np.quantile(ccd.data, 0.7)
        with pytest.warns(AstropyUserWarning, match="reached by 30% of the pixels and is not used"):
            prepared, record = prepare(ccd)
        assert prepared.mask is None
        assert "saturation" not in record
        prepared, _ = prepare(ccd, saturation="SATURATE")
        assert prepared.mask.mean() == pytest.approx(0.3, abs=1e-3)

    @pytest.mark.parametrize("saturation", [0, -5 * u.adu, np.nan * u.adu, np.inf])
    def test_impossible(self, ccd, saturation):
        with pytest.raises(ValueError, match="saturation must be a positive number"):
            prepare(ccd, saturation=saturation)

    def test_of_an_image_in_electron(self, ccd):
        ccd = ccdproc.gain_correct(ccd, GAIN)
        assert prepare(ccd)[1]["saturation"] == 400
        assert prepare(ccd, saturation=300)[1]["saturation"] == 300
        del ccd.meta["GAIN"]
        assert "saturation" not in prepare(ccd)[1]
        with pytest.raises(u.UnitConversionError, match="saturation is in adu, the image in electron"):
            prepare(ccd, saturation=150 * u.adu)


class TestLog:
    """The argument ``add_keyword`` that every function of ccdproc has."""

    def test_in_full(self, bare):
        meta = enhance_ccd(bare, **OPTIONS).meta
        assert isinstance(meta, fits.Header)
        assert (meta["DDPMVERS"], meta["DDPMSHA"]) == (__version__, DDPM.sha256)
        assert (meta["DDPMSEED"], meta["DDPMDEP"]) == (1, 0.2)
        assert (meta["DDPMNOIS"], meta["DDPMGAIN"], meta["DDPMRDN"]) == ("gain", 2, 5)
        history = str(meta["HISTORY"]).replace("\n", "")
        assert "enhance: model='toy', seed=1, n_samples=2, steps=2, noise_ratio=0.2" in history
        assert f"astro_ddpm {__version__} enhance_ccd: " in history

    def test_repeats(self, bare):
        once = enhance_ccd(bare, **OPTIONS)
        twice = enhance_ccd(once, **(OPTIONS | {"seed": 2, "again": True}))
        assert twice.meta["DDPMSEED"] == 2
        assert "DDPMGAIN" not in twice.meta
        assert str(twice.meta["HISTORY"]).count("enhance:") == 2
        assert twice.meta.count("DDPMSEED") == 1

    @pytest.mark.parametrize("nothing", [None, False])
    def test_nothing(self, bare, nothing):
        result = enhance_ccd(bare, add_keyword=nothing, **OPTIONS)
        assert repr(result.meta) == repr(bare.meta)

    def test_switched_off_in_ccdproc(self, bare):
        with ccdproc.conf.set_temp("auto_logging", False):
            result = enhance_ccd(bare, **OPTIONS)
        assert repr(result.meta) == repr(bare.meta)

    @pytest.mark.parametrize(
        ("items", "keyword", "value"),
        [
            ("DEEP", "DEEP", None),
            ({"DEEP": 1.5}, "DEEP", 1.5),
            (ccdproc.Keyword("DEEP", value="yes"), "DEEP", "yes"),
            ({"what was done": "ü" * 3}, "what was done", "???"),
            ({"DEEP": 2 * u.adu}, "DEEP", "2.0 adu"),
            ({"DEEP": np.float32(0.5)}, "DEEP", 0.5),
            ({"DEEP": np.nan}, "DEEP", "nan"),
        ],
    )
    def test_just_these(self, bare, tmp_path, items, keyword, value):
        result = enhance_ccd(bare, add_keyword=items, **OPTIONS)
        assert result.meta[keyword] == value
        assert len(result.meta) == len(bare.meta) + 1
        result.write(tmp_path / "image.fits")
        assert EnhancedCCDData.read(tmp_path / "image.fits").meta[keyword] == value

    def test_same_as_ccdproc(self, bare):
        for items in ("DEEP", {"DEEP": 3}, ccdproc.Keyword("DEEP", value="yes")):
            ours = enhance_ccd(bare, add_keyword=items, **OPTIONS).meta["DEEP"]
            assert ours == ccdproc.trim_image(bare, add_keyword=items).meta["DEEP"]

    def test_in_a_dictionary(self, bare):
        bare = CCDData(bare.data, unit="adu", meta={"GAIN": 2.0, "RDNOISE": 5.0})
        meta = enhance_ccd(bare, add_keyword={"what was done": [1]}, **OPTIONS).meta
        assert meta["what was done"] == [1]
        meta = enhance_ccd(bare, **OPTIONS).meta
        assert meta["DDPMGAIN"] == 2
        assert "enhance_ccd: " in meta["HISTORY"]

    def test_long_values_are_written(self, bare, tmp_path):
        record = {"outside": "psf_fwhm, noise_correlation, peak_snr, noise_ratio", "background": None}
        from astro_ddpm import provenance

        provenance.write(bare.meta, record | {"model": "a model of a long name " * 4})
        bare.write(tmp_path / "image.fits")
        back = provenance.read(fits.getheader(tmp_path / "image.fits"))
        assert back == provenance.read(bare.meta)
        assert back["outside"] == record["outside"]
