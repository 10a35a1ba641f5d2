# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of `enhance` and of weight files with input that nobody would think of.

Whatever comes in, either a valid result comes out or one of the documented errors, and the input is as it was
before. How many examples are tried is told by a profile of Hypothesis: ``ci``, or with
``--hypothesis-profile nightly`` many more (``astro_ddpm/conftest.py``).
"""

import json
import warnings
from itertools import count

import numpy as np
import pytest
import torch
from astropy import units as u
from astropy.io import fits
from astropy.nddata import (
    CCDData,
    InverseVariance,
    NDData,
    NDUncertainty,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS, Sip
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.torch import load, save

from astro_ddpm import EnhancedCCDData, enhance, zoo
from astro_ddpm.zoo import registry

from .helpers import make_image, toy_model

pytestmark = pytest.mark.slow

DDPM = toy_model()
RAUNET = toy_model(samples=False)
SMALL = {"n_samples": 2, "steps": 2, "seed": 1}
DOCUMENTED = (ValueError, TypeError, OSError)  # UnitConversionError is a ValueError

REAL = [order + kind for order in "<>" for kind in ("f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8")]
REAL += ["i1", "u1", "g"]
OTHER = ["?", "c8", "U3", "S2", "O", "M8[s]", "m8[s]"]
PIXELS = [np.nan, np.inf, -np.inf, 0.0, 1e5]  # in units of the noise
STRANGE_PIXELS = [1e-45, 1e-38, -1e38, 3e38, 1e200, -1e300, 65535, -32768]
NOISE = [np.nan, np.inf, 1e-30, 1e-10, 1e10, 1e18, 1e30]  # in units of the noise of the others
STRANGE_NOISE = [0.0, -0.0, -1.0, -np.inf, 1e-45, 3e38, 1e300]
UNITS = ["", "adu", "electron", "Jy", "mJy", "count / s", "maggy", "erg / (s cm2 Angstrom)", "1e-17 W / m2"]
UNITS = [u.Unit(text, parse_strict="silent") for text in UNITS]
LOGARITHMIC = [u.ABmag, u.mag, u.dex, u.mag / u.arcsec**2]
UNCERTAINTIES = [StdDevUncertainty, VarianceUncertainty, InverseVariance]

shapes = st.sampled_from([(9, 14), (16, 16), (24, 7)]) | hnp.array_shapes(
    min_dims=2, max_dims=2, min_side=1, max_side=24
)
odd_shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=12)
seeds = st.integers(0, 2**32 - 1)
rarely = st.integers(0, 40).map(lambda number: number == 17)  # Hypothesis likes the ends of an interval
sometimes = st.integers(0, 7).map(lambda number: number in (3, 5))
headers = st.lists(
    st.tuples(
        st.sampled_from(["OBJECT", "GAIN", "HISTORY", "COMMENT", "DDPMSEED", "HIERARCH a long key", "BUNIT"]),
        st.text("AZaz09 '", max_size=70)
        | st.integers(-(2**31), 2**31)
        | st.floats(-1e9, 1e9)
        | st.booleans(),
    ),
    max_size=4,
)


@st.composite
def layouts(draw, array):
    """The same values in another arrangement of memory."""
    array = np.asarray(array)
    kind = draw(st.sampled_from(["C", "Fortran", "reversed", "strided", "unaligned", "read-only"]))
    if not array.ndim or array.dtype.hasobject:
        return array
    if kind == "Fortran":
        return np.asfortranarray(array)
    if kind == "reversed":
        return array[::-1].copy()[::-1]
    if kind == "strided":
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if kind == "unaligned":
        raw = np.zeros(array.nbytes + 1, np.uint8)[1:]
        raw[:] = np.frombuffer(array.tobytes(), np.uint8)
        return raw.view(array.dtype).reshape(array.shape)
    array.flags.writeable = kind != "read-only"
    return array


@st.composite
def sprinkle(draw, array, values):
    """Change a few pixels of an array in place."""
    if array.size:
        pixel = st.tuples(st.integers(0, array.size - 1), st.sampled_from(values))
        for index, value in draw(st.lists(pixel, max_size=6)):
            array.flat[index] = value


def cast(array, dtype):
    """Change the dtype, whatever is lost."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return array.astype(dtype)


@st.composite
def images(draw, shape):
    """Noise of any scale and dtype, with sources and a few special pixels, in any layout; and its scale."""
    rng = np.random.default_rng(draw(seeds))
    scale = 10.0 ** draw(st.integers(-44, 44) if draw(sometimes) else st.integers(-22, 8))
    level, flux = draw(st.sampled_from([0, 0, 5, -100])), draw(st.sampled_from([0, 0, 30, 1e5]))
    array = np.array((rng.normal(level, 1, shape) + flux * (rng.random(shape) < 0.05)) * scale)
    draw(sprinkle(array, STRANGE_PIXELS if draw(sometimes) else np.multiply(PIXELS, scale)))
    return draw(layouts(cast(array, draw(st.sampled_from(OTHER if draw(rarely) else REAL))))), scale


@st.composite
def noises(draw, shape, scale):
    """Arrays for the noise: uniform or not, with a few special pixels; some of another shape."""
    rng = np.random.default_rng(draw(seeds))
    array = np.array(scale * rng.lognormal(0, draw(st.sampled_from([0, 0.2, 10])), shape))
    draw(sprinkle(array, STRANGE_NOISE if draw(rarely) else np.multiply(NOISE, scale)))
    array = np.atleast_1d(array)[..., :-1] if draw(rarely) else array
    return draw(layouts(cast(array, draw(st.sampled_from(["f8", ">f4", "f4", ">f8", "f2"])))))


@st.composite
def masks(draw, shape):
    """No mask, a number, or an array of bool or integer in which few or most pixels are masked."""
    kind = draw(st.sampled_from(["none", "none", "scalar", "bool", "bool", "integer"]))
    if kind == "none":
        return None
    if kind == "scalar":
        return draw(rarely)
    fraction = 0.97 if draw(rarely) else draw(st.sampled_from([0.0, 0.02, 0.3]))
    mask = np.random.default_rng(draw(seeds)).random(shape) < fraction
    return draw(layouts(mask if kind == "bool" else 4 * mask.astype("i2")))


@st.composite
def worlds(draw):
    """No WCS, or a tangential one, perhaps with a distortion."""
    kind = draw(st.sampled_from(["none", "TAN", "TAN-SIP"]))
    if kind == "none":
        return None
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = f"RA---{kind}", f"DEC--{kind}"
    wcs.wcs.crval = draw(st.floats(0, 360)), draw(st.floats(-90, 90))
    wcs.wcs.cdelt = -1e-4, 1e-4
    if kind == "TAN-SIP":
        wcs.sip = Sip(np.zeros((3, 3)), 1e-6 * np.eye(3), None, None, (4.0, 4.0))
    return wcs


@st.composite
def nddata(draw, cls, data, unit, noise):
    """A CCDData or NDData with everything that it can carry; perhaps a part of it."""
    cards = draw(headers)
    text = [(key, str(value) if key in ("HISTORY", "COMMENT") else value) for key, value in cards]
    carried = {
        "unit": unit,
        "mask": draw(masks(data.shape)),
        "meta": fits.Header(text) if draw(st.booleans()) else dict(cards),
        "wcs": draw(worlds()),
    }
    if cls is CCDData:
        carried["psf"] = draw(st.none() | hnp.arrays("f8", (5, 5), elements=st.floats(0, 1)))
        carried["flags"] = draw(st.none() | hnp.arrays("i4", data.shape))
    if noise is not None:
        kind = UnknownUncertainty if draw(rarely) else draw(st.sampled_from(UNCERTAINTIES))
        with np.errstate(all="ignore"):
            noise = {VarianceUncertainty: noise**2, InverseVariance: 1 / noise**2}.get(kind, noise)
        carried["uncertainty"] = kind(noise)
    try:
        image = cls(data, **carried)
        return image[1:, :-1] if cls is CCDData and draw(sometimes) else image
    except (ValueError, TypeError, IndexError, u.UnitsError):  # astropy takes it for nonsense, too
        assume(False)


@st.composite
def inputs(draw):
    """An image of any class, and options of `enhance`."""
    shape = draw(odd_shapes if draw(rarely) else shapes)
    data, scale = draw(images(shape))
    noise = None if draw(sometimes) else draw(noises(shape, scale))
    unit = draw(st.sampled_from(LOGARITHMIC if draw(rarely) else UNITS))
    cls = draw(
        st.sampled_from([CCDData, CCDData, CCDData, NDData, np.ndarray, u.Quantity, np.ma.array, list])
    )
    options = {"model": draw(st.sampled_from([RAUNET, RAUNET, DDPM]))}
    if cls in (CCDData, NDData):
        carried = noise if draw(st.booleans()) else None
        image = draw(nddata(cls, data, unit, carried))
        noise = noise if carried is None else None
    elif cls is u.Quantity:
        assume(data.dtype.kind in "iuf")
        image = u.Quantity(data, unit, copy=False, dtype=data.dtype, subok=True)
    elif cls is np.ma.array:
        mask = draw(masks(shape))
        image = np.ma.array(data, mask=False if mask is None else mask)
    else:
        image = data.tolist() if cls is list else data
    if noise is not None:
        forms = {
            "array": noise,
            "Quantity": u.Quantity(noise, draw(st.sampled_from([unit, unit, *UNITS])), subok=True),
            "number": draw(st.sampled_from([0.0, 1e300] if draw(rarely) else [scale, 3 * scale])),
            "NDUncertainty": StdDevUncertainty(noise),
        }
        options["uncertainty"] = forms[draw(st.sampled_from(sorted(forms)))]
    strange = [np.inf, "sky", 1e300, np.zeros((2, 3))]
    usual = [None, None, "photutils", 0.0, 5 * scale, np.full(shape, -scale)]
    options["background"] = draw(st.sampled_from(strange if draw(rarely) else usual))
    options["mask_treatment"] = draw(st.sampled_from(["fill", "propagate"]))
    options["add_keyword"] = draw(st.booleans())
    return image, options


def frozen(thing):
    """Everything about an input that must stay, as text and bytes."""
    if isinstance(thing, dict):
        return [(key, frozen(value)) for key, value in thing.items()]
    if isinstance(thing, fits.Header):
        return thing.tostring()
    if isinstance(thing, WCS):
        return thing.to_header_string(relax=True)
    if isinstance(thing, NDData):
        return frozen(
            {name: getattr(thing, name, None) for name in (*CARRIED, "data", "uncertainty", "meta")}
        )
    if isinstance(thing, NDUncertainty):
        return frozen(thing.array), str(thing.unit)
    if isinstance(thing, np.ma.MaskedArray):
        return frozen(thing.data), frozen(thing.mask)
    if isinstance(thing, np.ndarray):
        array = np.asarray(thing)
        values = repr(array.tolist()) if array.dtype.hasobject else array.tobytes()
        return values, array.dtype.str, array.shape, array.strides, array.flags.writeable
    return repr(thing)


CARRIED = ("unit", "mask", "wcs", "psf", "flags")


def attempt(image, options):
    """Return what `enhance` returns, or None for a documented error; unknown warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)
        try:
            return enhance(image, **(SMALL | options))
        except DOCUMENTED:
            return None


def check(image, options, result):
    """Check all that is promised about a result."""
    data = np.asarray(np.ma.getdata(image.data if isinstance(image, NDData) else image))
    mask, unit = getattr(image, "mask", None), getattr(image, "unit", None)
    masked = np.broadcast_to(False if mask is None else np.asarray(mask, bool), data.shape)
    lost = ~np.isfinite(data)
    left_out = np.zeros(data.shape, bool) if result.mask is None else np.asarray(result.mask)
    expected = np.result_type(data.dtype.newbyteorder("="), np.float32)
    std = result.uncertainty.array
    assert isinstance(result, EnhancedCCDData)
    assert result.unit == (u.dimensionless_unscaled if unit is None else unit)
    for plane in (result.data, std, *([] if result.samples is None else result.samples)):
        assert plane.shape == data.shape
        assert plane.dtype == (np.float64 if expected.itemsize > 8 else expected)
        assert plane.dtype.isnative
        if options["mask_treatment"] == "fill":
            assert np.isfinite(plane).all()
        assert np.isfinite(plane[~(masked | lost | ~np.isfinite(std))]).all()
    if options["mask_treatment"] == "fill":
        assert (std > 0).all()
    else:
        assert_array_equal(result.data[masked | lost], data[masked | lost].astype(result.data.dtype))
        assert not (std[~(masked | lost | left_out)] <= 0).any()
    assert not (masked | lost)[~left_out].any()
    without = left_out & ~(masked | lost)  # by their noise, or because they have one value
    assert mask is not None or lost.any() or without.any() or result.mask is None
    if isinstance(image, NDData):
        names = [name for name in CARRIED if name != "mask" and getattr(image, name, None) is not None]
        assert [frozen(getattr(result, name)) for name in names] == [
            frozen(getattr(image, name)) for name in names
        ]
        kept = {key for key in image.meta if not key.startswith("DDPM")}
        assert kept <= set(result.meta)
    assert not options["add_keyword"] or "DDPMVERS" in result.meta


@given(inputs())
def test_result_or_documented_error(case):
    image, options = case
    result = attempt(image, options)
    if result is not None:
        check(image, options, result)


@given(inputs())
def test_input_is_never_changed(case):
    before = frozen(case[0]), frozen(case[1])
    attempt(*case)
    assert (frozen(case[0]), frozen(case[1])) == before


@given(
    shape=shapes,
    seed=seeds,
    exponent=st.integers(-60, 60),
    dtype=st.sampled_from(["f4", "f8"]),
    masked=st.floats(0, 0.5),
    model=st.sampled_from([DDPM, RAUNET]),
)
def test_change_of_unit(shape, seed, exponent, dtype, masked, model):
    """A factor that is a power of two is exact, whatever the image."""
    rng = np.random.default_rng(seed)
    data, sigma = rng.normal(0, 3, shape).astype(dtype), rng.lognormal(0, 0.3, shape).astype(dtype)
    mask = rng.random(shape) < masked
    assume((~mask).sum() >= 4)
    factor = 2.0**exponent
    results = []
    for scale in (1, factor):
        unit = u.def_unit("unit", u.Jy / scale)
        noise = StdDevUncertainty((scale * sigma).astype(dtype))
        field = CCDData((scale * data).astype(dtype), unit=unit, mask=mask, uncertainty=noise)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyUserWarning)
            results.append(enhance(field, model=model, **SMALL))
        assert results[-1].unit is unit
    one, other = results
    assert_allclose(other.data, factor * one.data, rtol=1e-5, atol=1e-5 * factor)
    assert_allclose(other.uncertainty.array, factor * one.uncertainty.array, rtol=1e-5)


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 4) | st.sampled_from([2**63, -(2**70)]),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.lists(st.floats(), max_size=3),
    st.dictionaries(st.text(max_size=2), st.none(), max_size=1),
    st.sampled_from(
        [np.float32(2), np.int16(2), np.array(3), np.array([1, 2]), 2 * u.Jy, 3 * u.m, u.Jy, set(), ...]
    ),
    st.sampled_from(["cpu", "cuda", "meta", "mps", "xla", "hpu", "photutils", "fill", "raunet.safetensors"]),
)
NAMES = [
    "n_samples",
    "steps",
    "seed",
    "noise_ratio",
    "uncertainty",
    "background",
    "mask_treatment",
    "tile_size",
]
NAMES += ["batch_size", "device", "add_keyword"]


@given(st.dictionaries(st.sampled_from(NAMES), anything, min_size=1, max_size=2))
def test_any_option(options):
    carries = "uncertainty" in options
    image = make_image((12, 9), **({"uncertainty": None} if carries else {}))
    result = attempt(image, {"model": RAUNET, **options})
    if result is not None:
        check(image, {"mask_treatment": "fill", "add_keyword": True, **options}, result)


@given(anything)
def test_any_image_and_any_model(thing):
    attempt(thing, {"model": RAUNET, "uncertainty": 1.0})
    attempt(make_image((12, 9)), {"model": thing})


WEIGHTS, METADATA = {}, {}
numbers = count()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the file of a model, which is read once more into WEIGHTS and METADATA."""
    path = tmp_path_factory.mktemp("weights")
    zoo.save(DDPM, path / "toy.safetensors")
    content = (path / "toy.safetensors").read_bytes()
    WEIGHTS.update(load(content))
    METADATA.update(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"])
    return path


def load_bytes(folder, content):
    """Load a model from the bytes of a file, or None for the documented error."""
    path = folder / f"{next(numbers)}.safetensors"
    path.write_bytes(content)
    try:
        return zoo.load(path)
    except ValueError:
        return None
    finally:
        path.unlink()


def check_model(model):
    """Check that a model that was loaded can be used."""
    result = attempt(make_image((12, 9)), {"model": model})
    assert np.isfinite(result.data).all()


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["flip", "cut", "drop", "add"])), max_size=3))
def test_damaged_weight_file(folder, damages):
    content = good = (folder / "toy.safetensors").read_bytes()
    for where, kind in damages:
        # half of the damages in the header
        position = int(where * 2 * 4000) if where < 0.5 else int((2 * where - 1) * len(content))
        head, tail = content[:position], content[position:]
        content = {
            "flip": head + bytes([tail[0] ^ 1]) * bool(tail) + tail[1:] if tail else head,
            "cut": head,
            "drop": head + tail[1:],
            "add": head + b"7" + tail,
        }[kind]
    model = load_bytes(folder, content)
    if content == good:
        assert model.sha256 == METADATA["sha256"]
    if model is not None:
        weights = {**{f"raunet.{k}": v for k, v in model.regressor.state_dict().items()}}
        assert all(torch.equal(value, WEIGHTS[key]) for key, value in weights.items())


texts = st.text(max_size=12) | st.recursive(
    st.none() | st.booleans() | st.integers(-1, 20) | st.integers() | st.floats() | st.text("ad", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "raunet",
                    "network",
                    "channels",
                    "dropout",
                    "embedding_channels",
                    "noise_ratio",
                    "default_noise_ratio",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
).map(json.dumps)
configs = st.fixed_dictionaries(
    {
        "channels": st.lists(
            st.integers(1, 8) | st.sampled_from([0, -1, 10**6, 2**62, 10**30, 4.0, "4", None]), max_size=12
        )
    },
    optional={
        "dropout": st.sampled_from([0.0, 0.5, 1.5, -1, np.nan, "x"]),
        "embedding_channels": st.sampled_from([8, 0, -2, 10**9, 2**63, 1.5]),
        "colour": st.none(),
    },
)
architectures = st.fixed_dictionaries({"raunet": configs}, optional={"network": configs}).map(json.dumps)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "architecture": architectures | texts,
            "ranges": texts,
            "training": texts,
            "temperature": texts,
            "one_step": texts,
            "format": texts,
            "sha256": texts,
            "more": texts,
        },
    )
)
def test_strange_metadata(folder, changes):
    """The weights are intact, and so is their SHA-256."""
    model = load_bytes(folder, save(WEIGHTS, METADATA | changes))
    if not changes:
        assert model.sha256 == METADATA["sha256"]
    if model is not None:
        check_model(model)


@given(
    st.sampled_from(["raunet.mean_head.0.gain", "network.mlp.0.weight", "raunet.stem.bank.weight", "new"]),
    hnp.arrays(
        st.sampled_from(["f4", "f8", "i8", "?", "f2", "u1"]),
        hnp.array_shapes(min_dims=0, max_dims=4, max_side=5),
    ),
    st.booleans(),
)
def test_strange_weights(folder, name, array, same_shape):
    """The SHA-256 is right, for whoever changes weights can compute it."""
    tensor = torch.from_numpy(array)
    if same_shape and name in WEIGHTS:
        tensor = torch.from_numpy(np.resize(array, tuple(WEIGHTS[name].shape)))
    weights = WEIGHTS | {name: tensor.contiguous()}
    sha256 = registry._digest(weights)
    model = load_bytes(folder, save(weights, METADATA | {"sha256": sha256}))
    fits_in = name in WEIGHTS and tensor.shape == WEIGHTS[name].shape and tensor.dtype == torch.float32
    assert (model is not None) == (fits_in and bool(tensor.isfinite().all()))


class TestFound:
    """Each of these inputs was found by a property above and once gave a wrong result or an obscure error."""

    @pytest.mark.parametrize("cls", UNCERTAINTIES)
    @pytest.mark.parametrize("scale", [1e-19, 1e-16, 1e16])
    def test_squares_beyond_float32(self, cls, scale):
        expected = enhance(make_image(), model=RAUNET)
        ccd = make_image()
        sigma = scale * ccd.uncertainty.array.astype(float)
        noise = {StdDevUncertainty: sigma, VarianceUncertainty: sigma**2, InverseVariance: sigma**-2}[cls]
        ccd.data = (scale * ccd.data).astype("f4")
        ccd.uncertainty = cls(noise.astype("f4" if cls is StdDevUncertainty else "f8"))
        result = enhance(ccd, model=RAUNET)
        assert_allclose(result.data / scale, expected.data, rtol=1e-4, atol=1e-4)
        assert_allclose(result.uncertainty.array / scale, expected.uncertainty.array, rtol=1e-4)

    @pytest.mark.filterwarnings("ignore:1 pixels hold no information")
    def test_hole_beside_a_pixel_without_weight(self):
        mask = np.zeros((40, 36), bool)
        mask[20:23, 3:6] = True
        ccd = make_image(mask=mask)
        ccd.uncertainty.array[2, 2] = 1e15  # its square would swallow the others in a running sum
        result = enhance(ccd, model=RAUNET)
        mask[2, 2] = True
        expected = enhance(make_image(mask=mask), model=RAUNET)
        assert_allclose(result.uncertainty.array[mask], expected.uncertainty.array[mask], rtol=1e-4)
        assert_allclose(result.data, expected.data, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("unit", LOGARITHMIC)
    def test_magnitudes(self, unit):
        with pytest.raises(ValueError, match="is logarithmic; convert it to a linear unit"):
            enhance(NDData(make_image().data, unit=unit), uncertainty=1.0, model=RAUNET)

    @pytest.mark.parametrize(
        ("pixel", "uncertainty", "match"),
        [
            (1e38, 1.0, "image holds values beyond"),
            (0.0, 1e-40, "uncertainty must be 1e-30 to 1e"),
            (0.0, 1e35, "uncertainty must be 1e-30 to 1e"),
            (1e25, 1.0, "image is more than 1e.15 times its uncertainty"),
        ],
    )
    def test_values_that_would_overflow(self, pixel, uncertainty, match):
        data = make_image((16, 16)).data
        data[3, 3] = pixel
        with pytest.raises(ValueError, match=match):
            enhance(data, uncertainty=uncertainty, model=RAUNET)

    def test_half_precision_noise_in_another_unit(self):
        ccd = make_image(unit="mJy", uncertainty=None)
        noise = np.full(ccd.shape, 100, "f2") * u.Jy  # 1e5 mJy are beyond float16
        expected = enhance(ccd, uncertainty=1e5, model=RAUNET)
        assert_array_equal(enhance(ccd, uncertainty=noise, model=RAUNET).data, expected.data)

    @pytest.mark.filterwarnings("ignore:1 pixels hold no information")
    def test_noise_beyond_float32_is_no_information(self):
        ccd = make_image()
        sigma = ccd.uncertainty.array.astype(float)
        sigma[3, 3] = 1e200
        infinite = np.where(sigma > 1e30, np.inf, sigma)
        results = []
        for noise in (sigma, infinite):
            ccd.uncertainty = StdDevUncertainty(noise)
            results.append(enhance(ccd, model=RAUNET).data)
        assert_array_equal(*results)

    def test_uncertainty_never_vanishes(self):
        sure = toy_model(samples=False)
        sure.regressor.std_head[2].bias.fill_(-1000)
        assert (enhance(make_image(), model=sure).uncertainty.array > 0).all()

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"n_samples": np.inf}, "n_samples must be"),
            ({"n_samples": 2.0}, "n_samples must be"),
            ({"steps": "ten"}, "steps must be"),
            ({"seed": 1.5}, "seed must be"),
            ({"noise_ratio": "deep"}, "noise_ratio must be"),
            ({"device": "meta"}, "device 'meta' cannot be used"),
            ({"device": "hpu"}, "device 'hpu' cannot be used"),
            ({"background": 1e200}, "background must be finite"),
        ],
    )
    def test_options(self, options, match):
        with pytest.raises(ValueError, match=match):
            enhance(make_image(), **({"model": DDPM} | SMALL | options))

    def test_photutils_without_enough_pixels(self):
        mask = np.random.default_rng(0).random((40, 36)) < 0.7
        with pytest.raises(ValueError, match="background='photutils' finds too few valid pixels"):
            enhance(make_image(mask=mask), background="photutils", model=RAUNET)

    def test_name_of_a_model_is_not_ascii(self, tmp_path):
        zoo.save(RAUNET, tmp_path / "modèle.safetensors")
        result = enhance(make_image(), model=tmp_path / "modèle.safetensors")
        result.write(tmp_path / "result.fits")
        assert fits.getval(tmp_path / "result.fits", "DDPMMODL") == "mod?le"

    def test_nothing_is_logged(self, caplog):
        enhance(NDData(make_image().data, unit="adu"), uncertainty=1.0, model=RAUNET)
        assert not caplog.records
