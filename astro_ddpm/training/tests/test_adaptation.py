# Licensed under a 3-clause BSD style license - see LICENSE.rst
import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.utils.exceptions import AstropyUserWarning
from numpy.testing import assert_allclose
from scipy.ndimage import gaussian_filter
from scipy.signal import correlate2d

from astro_ddpm import enhance, zoo
from astro_ddpm.cli import main
from astro_ddpm.nn import GuidedUNet, RAUNet
from astro_ddpm.noise import correlated_noise
from astro_ddpm.selfcheck.check import EDGES
from astro_ddpm.training import adapt, adapt_cameras, adaptation, heldout
from astro_ddpm.training.heldout import JUDGE, NoisyFrame, Part, choose_parts, compare, hold_out

SMOOTHED = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5])


@pytest.fixture(autouse=True, scope="module")
def small():
    """Make steps small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptation, "CROPS", 3)
        patch.setattr(adaptation, "SCENES", 1)
        patch.setattr(adaptation, "EVERY", 10)
        yield


def toy_model():
    """Return a model that leaves every image as it is, until it learns."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = RAUNet((8, 16)), GuidedUNet((4, 8), 8)
    ranges = {"noise_ratio": [0.02, 0.6], "default_noise_ratio": 0.2}
    return zoo.Model(*networks, name="toy", sha256="0" * 64, ranges=ranges)


def make_scene(shape=(128, 128), seed=0):
    """Return crowded faint stars of a PSF of 3 pixels, in units of the noise."""
    rng = np.random.default_rng(seed)
    image = np.zeros(shape)
    y, x = rng.integers(0, shape, (shape[0] * shape[1] // 100, 2)).T
    np.add.at(image, (y, x), 10 ** rng.uniform(0.5, 1.4, y.size))
    return gaussian_filter(image, 1.3)


def make_frame(scene=None, seed=1, kernel=0, stated=1.0, **header):
    """Return a frame with noise of 2 adu."""
    scene = make_scene() if scene is None else scene
    noise = correlated_noise(scene.shape, kernel, np.random.default_rng(seed))
    sigma = np.full(scene.shape, 2 * stated)
    return CCDData(
        2 * (scene + noise), unit="adu", uncertainty=StdDevUncertainty(sigma), meta=fits.Header(header)
    )


class Smoother:
    """A regressor whose mean smooths and whose width is a number."""

    def __init__(self, width, std=0.5):
        self.width, self.std = width, std

    def estimate(self, z, valid, orientations=2):
        smooth = torch.from_numpy(gaussian_filter(z.numpy(), (0, 0, self.width, self.width)))
        return smooth - z, torch.full_like(z, self.std)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """What a toy model learns from one frame, and the file."""
    output = tmp_path_factory.mktemp("adapt") / "mine.safetensors"
    result = adapt(make_frame(), toy_model(), output=output, steps=30, learning_rate=1e-2)
    assert result.accepted, f"{result.reason} {result.table}"
    return result, output


class TestLearning:
    """Test what an accepted adaptation leaves."""

    def test_error_falls(self, learned):
        other = make_scene(seed=5)
        frame = make_frame(other, seed=6)
        errors = []
        for model in (toy_model(), zoo.load(learned[1])):
            deep = enhance(frame, model=zoo.Model(model.regressor), verify=False)
            errors.append(np.std(deep.data / 2 - other))
        assert errors[1] < 0.75 * errors[0]

    def test_table_tells_the_error(self, learned):
        table = learned[0].table
        assert np.all(table["after"] < 0.95 * table["before"])
        assert table["n_pixels"].sum() == pytest.approx(0.25 * 128**2, rel=0.1)

    def test_file(self, learned):
        result, output = learned
        model, start = zoo.load(output), toy_model()
        assert model.sha256 == result.model.sha256
        for new, old in zip(model.denoiser.parameters(), start.denoiser.parameters(), strict=True):
            assert_allclose(new, old)
        record = model.training["adaptation"]
        assert record["adapted_from"] == {"name": "toy", "sha256": start.sha256}
        assert record["frames"][0]["name"] == "frame 1"
        low, high = model.ranges["noise_correlation"]
        assert low < 0 < high
        assert model.ranges["noise_ratio"] == start.ranges["noise_ratio"]
        assert [path.name for path in output.parent.iterdir()] == [output.name]

    def test_picture(self, learned):
        figure = learned[0].plot()
        assert len(figure.axes) == 4


@pytest.mark.parametrize("level", [0.8, 1.2])
def test_noises_of_input_and_target_are_independent(monkeypatch, level):
    # though the noise is not as large as was stated
    monkeypatch.setattr(adaptation._FrameCrops, "sky_share", 0)
    monkeypatch.setattr(adaptation._FrameCrops, "hole_share", 0)
    noise = np.random.default_rng(1).standard_normal((512, 512)).astype(np.float32)
    frame = NoisyFrame(level * noise, np.ones(noise.shape, bool), noise=level)
    hold_out([frame], 0)
    places = adaptation._places([frame])
    examples = [adaptation._FrameCrops([frame], places, 0, step)[0] for step in range(30)]
    z, residual, depth = (np.stack([e[name] for e in examples]) for name in ("z", "residual", "depth"))
    target = z + residual
    assert abs(np.mean(z * target)) < 0.02
    assert np.mean(target**2 / depth[:, None, None, None] ** 2) == pytest.approx(1, rel=0.03)


def test_interrupted_and_repeated_gives_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr(adaptation, "EVERY", 5)
    options = {"steps": 15, "learning_rate": 1e-2, "seed": 4}
    whole = adapt(make_frame(), toy_model(), output=tmp_path / "whole.safetensors", **options)
    take_step = adaptation._Training._take_step

    def fail(self):
        if self.step == 11:
            raise KeyboardInterrupt
        take_step(self)

    monkeypatch.setattr(adaptation._Training, "_take_step", fail)
    with pytest.raises(KeyboardInterrupt):
        adapt(make_frame(), toy_model(), output=tmp_path / "mine.safetensors", **options)
    steps = []
    monkeypatch.setattr(
        adaptation._Training, "_take_step", lambda self: (steps.append(self.step), take_step(self))
    )
    again = adapt(make_frame(), toy_model(), output=tmp_path / "mine.safetensors", **options)
    assert steps == [10, 11, 12, 13, 14]
    assert again.model.sha256 == whole.model.sha256


class TestRefusal:
    """Test that nothing is written where nothing is gained."""

    @pytest.mark.parametrize(
        ("frame", "reason"),
        [
            (lambda: make_frame(make_scene((64, 64))), "too few to learn from"),
            (lambda: make_frame(make_scene((40, 300))), "smaller than 48 pixels"),
            (lambda: make_frame(np.zeros((128, 128)), stated=2.0), "the stated noise is 2 times"),
            (lambda: make_frame(np.zeros((128, 128)), kernel=1.3), "over more than three pixels"),
            (lambda: make_frame(np.zeros((128, 128)), kernel=3.0), "over more than three pixels"),
        ],
    )
    def test_frames(self, tmp_path, frame, reason):
        result = adapt(frame(), toy_model(), output=tmp_path / "mine.safetensors")
        assert not result.accepted
        assert result.model is None
        assert not list(tmp_path.iterdir())
        with pytest.raises(ValueError, match=reason):
            result.plot()

    @pytest.mark.parametrize(("score", "reason"), [(1, "gain nothing"), (-1, "does not fall beyond doubt")])
    def test_no_gain(self, tmp_path, monkeypatch, score, reason):
        monkeypatch.setattr(adaptation._Training, "_score", lambda *_: score)
        output = tmp_path / "mine.safetensors"
        result = adapt(make_frame(), toy_model(), output=output, steps=1, learning_rate=1e-9)
        assert not result.accepted
        assert reason in result.reason
        assert not list(tmp_path.iterdir())

    def test_a_bad_frame_among_good_ones_is_left_out(self, tmp_path, monkeypatch):
        monkeypatch.setattr(adaptation._Training, "_score", lambda *_: -1)
        frames = [make_frame(), make_frame(np.zeros((128, 128)), stated=2.0)]
        with pytest.warns(AstropyUserWarning, match="left out: frame 2: the stated noise"):
            result = adapt(
                frames, toy_model(), output=tmp_path / "m.safetensors", steps=1, learning_rate=1e-9
            )
        assert result.table is not None

    def test_enhanced(self, tmp_path):
        frame = enhance(make_frame(make_scene((64, 64))), model=zoo.Model(toy_model().regressor))
        with pytest.raises(ValueError, match="has been enhanced"):
            adapt(frame, toy_model(), output=tmp_path / "mine.safetensors")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"steps": 0}, "steps must be positive"),
            ({"minutes": -1.0}, "minutes must be positive"),
            ({"output": "mine.fits"}, "output must end in .safetensors"),
            ({"images": []}, "images must not be empty"),
            ({"images": [1, 2], "uncertainty": 1.0}, "uncertainty is for one image"),
        ],
    )
    def test_options(self, tmp_path, options, message):
        with pytest.raises(ValueError, match=message):
            adapt(**{"images": make_frame(), "output": tmp_path / "mine.safetensors"} | options)


@pytest.fixture(scope="module", params=[0, SMOOTHED], ids=["white", "correlated"])
def case(request):
    """Scene and parts of a frame of 320 x 320 pixels, half of whose blocks judge."""
    x = np.sin(np.arange(320) / 6)
    scene = 6 * np.outer(x, x)
    noise = correlated_noise(scene.shape, request.param, np.random.default_rng(2))
    correlation = None
    if np.ndim(request.param):
        correlation = correlate2d(SMOOTHED, SMOOTHED)
        correlation = np.pad(correlation / correlation.max(), 1)
    frame = NoisyFrame((scene + noise).astype(np.float32), np.ones(scene.shape, bool), correlation)
    hold_out([frame], 0)
    frame.blocks[:] = JUDGE
    return scene, [Part(frame, (slice(0, 320), slice(0, 320)), 1, "cpu")]


class TestJudgement:
    """Test the verdict against what is known."""

    def test_change_of_the_error_is_the_true_one(self, case):
        scene, (part,) = case
        regressors = Smoother(0.5), Smoother(1.0)
        _, whole = compare([part], *regressors, (1.0,))
        errors = [np.mean((part.z + part.ask(each, part.z)[0] - scene) ** 2) for each in regressors]
        assert abs(whole["change"] - (errors[1] - errors[0])) < 4 * whole["change_err"]
        assert whole["change_err"] < 0.1 * abs(whole["change"])
        assert whole["error"] == pytest.approx(errors[0], rel=0.1)

    def test_loss_is_least_for_the_true_width(self, case):
        scene, (part,) = case
        rng = np.random.default_rng(3)
        factor = 1.0
        noisier = part.z + factor * correlated_noise(scene.shape, part.frame.kernel, rng)
        wide = Smoother(1.0)
        error = (noisier + np.sqrt(2) * part.ask(wide, noisier / np.sqrt(2))[0] - scene) / np.sqrt(2)
        width = np.std(error)
        losses = [part.loss(Smoother(1.0, width * f), (factor,)).mean() for f in (0.6, 1.0, 1.6)]
        assert losses[1] == min(losses)

    def test_kernel_makes_the_correlation(self, case):
        _, (part,) = case
        power = correlate2d(part.frame.kernel, part.frame.kernel)
        power /= power.max()
        centre = tuple(slice(n // 2 - 3, n // 2 + 4) for n in power.shape)
        expected = part.frame.correlation
        if expected is not None:
            assert_allclose(power[centre], expected, atol=0.02)

    @pytest.fixture
    def better(self):
        """Bins and whole of a model that is better everywhere."""
        n = len(EDGES) - 1
        ones = np.ones(n)
        bins = {
            "n_pixels": (1000 * ones).astype(int),
            "error": ones,
            "change": -0.1 * ones,
            "loss": -0.1 * ones,
        }
        bins |= {"change_err": 0.01 * ones, "loss_err": 0.01 * ones}
        whole = {
            "error": 1.0,
            "stated": 1.0,
            "change": -0.1,
            "change_err": 0.01,
            "loss": -0.1,
            "loss_err": 0.01,
        }
        return bins, whole

    def test_better(self, better):
        table, reason = adaptation._judge(*better)
        assert not reason
        assert_allclose(table["after"], np.sqrt(0.9))

    def test_small_gain(self, better):
        better[1].update(change=-0.009, change_err=1e-4)
        assert "by less than 1%" in adaptation._judge(*better)[1]
        better[1]["change"] = -0.011
        assert not adaptation._judge(*better)[1]

    @pytest.mark.parametrize("name", ["change", "loss"])
    def test_within_the_error(self, better, name):
        better[1][name] = -1.9 * better[1][f"{name}_err"]
        assert "does not fall beyond doubt" in adaptation._judge(*better)[1]

    @pytest.mark.parametrize("name", ["change", "loss"])
    def test_harm_in_one_bin(self, better, name):
        better[0][name][3] = 2.1 * better[0][f"{name}_err"][3]
        assert f"rises from {EDGES[3]:g} sigma on" in adaptation._judge(*better)[1]
        better[0][name][3] = 1.9 * better[0][f"{name}_err"][3]
        assert not adaptation._judge(*better)[1]


def test_errors_of_means_come_from_blocks():
    rng = np.random.default_rng(0)
    means = []
    for _ in range(300):
        blocks = np.repeat(np.arange(40), 25)
        values = rng.standard_normal(40)[blocks] + rng.standard_normal(blocks.size)
        mean, error, number = heldout.mean_and_error(values, blocks, np.zeros_like(blocks), 1)
        means.append((mean[0], error[0]))
    scatter = np.std([mean for mean, _ in means])
    assert np.mean([error for _, error in means]) == pytest.approx(scatter, rel=0.1)
    assert number[0] == 1000


def test_parts_hold_all_levels():
    frames = [NoisyFrame(np.zeros((600, 700), np.float32), np.ones((600, 700), bool)) for _ in range(3)]
    frames[1].z[300:310, 600:610] = 500
    parts = choose_parts(frames)
    assert (1, (slice(256, 512), slice(512, 700))) in parts
    assert sum((y.stop - y.start) * (x.stop - x.start) for _, (y, x) in parts) < 400_000


def test_cameras_are_told_apart(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        adaptation, "adapt", lambda frames, model, **options: calls.append((len(frames), options))
    )
    frames = [
        make_frame(make_scene((64, 64)), INSTRUME=name, FILTER=f) for name, f in ("ar", "br", "ai", "ar")
    ]
    found = adapt_cameras(frames, location=tmp_path / "new", groupby=("INSTRUME", "FILTER"), names=[*"1234"])
    assert [*found] == ["a_r.safetensors", "b_r.safetensors", "a_i.safetensors"]
    assert [(n, o["names"]) for n, o in calls] == [(2, ["1", "4"]), (1, ["2"]), (1, ["3"])]
    assert (tmp_path / "new").is_dir()


def test_command(tmp_path, capsys):
    zoo.save(toy_model(), tmp_path / "toy.safetensors")
    make_frame().write(tmp_path / "frame.fits")
    make_frame(make_scene((64, 64))).write(tmp_path / "small.fits")
    output = tmp_path / "mine.safetensors"
    options = ["-o", str(output), "--model", str(tmp_path / "toy.safetensors"), "--steps", "20"]
    assert main(["adapt", str(tmp_path / "small.fits"), *options]) == 1
    assert "mine.safetensors was not written: " in capsys.readouterr().err
    assert main(["adapt", str(tmp_path / "frame.fits"), *options, "--picture", "--quiet"]) == 0
    assert "the mean square error falls by" in capsys.readouterr().out
    assert zoo.load(output).training["adaptation"]["frames"][0]["name"] == str(tmp_path / "frame.fits")
    assert output.with_suffix(".png").exists()
