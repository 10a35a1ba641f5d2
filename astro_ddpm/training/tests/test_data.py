# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the data module.
"""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.utils.data import Subset

from astro_ddpm.training import DeepDataset, FrameDataset, PairDataModule, PairDataset, correlated_noise
from astro_ddpm.training.arrays import write_arrays
from astro_ddpm.training.examples import ExampleDataset
from astro_ddpm.training.tests.helpers import simulated_arrays


@pytest.fixture(scope="module")
def arrays():
    return simulated_arrays(12, size=64)


@pytest.fixture
def no_sky(monkeypatch):
    """Leave the errors of the sky out."""
    monkeypatch.setattr(ExampleDataset, "sky_share", 0.0)


def pull(example):
    """Return the residual where pixels were measured, in units of its expected scatter."""
    residual = example["residual"][example["valid"] > 0]
    return residual / np.sqrt(1 + example["depth"] ** 2)


def check_unit_scatter(examples):
    pulls = np.concatenate([pull(example) for example in examples])
    # of 30 % of the examples the noise is correlated over up to 0.8 pixels
    error = 1 / np.sqrt(pulls.size / 4)
    assert abs(pulls.mean()) < 4 * error
    assert abs(pulls.var() - 1) < 4 * np.sqrt(2) * error


class TestPairDataset:
    def test_shapes_and_dtypes(self, arrays):
        for augment in (True, False):
            example = PairDataset(arrays, augment=augment)[3]
            assert sorted(example) == ["depth", "residual", "use", "valid", "z"]
            for name in ("residual", "use", "valid", "z"):
                assert example[name].shape == (1, 64, 64)
                assert example[name].dtype == np.float32
            assert example["depth"].dtype == np.float32
            assert np.ndim(example["depth"]) == 0

    def test_length(self, arrays):
        assert len(PairDataset(arrays)) == 12
        assert len(PairDataset(arrays, repeat=5)) == 60

    def test_validation_shows_pairs_as_they_are(self, arrays):
        data = PairDataset(arrays, augment=False, seed=3)
        for i in (0, 5):
            example = data[i]
            assert_allclose(example["z"][0], arrays["shallow"][i] / arrays["sigma"][i], rtol=1e-6, atol=1e-5)
            recovered = example["residual"][0] * arrays["sigma"][i] + arrays["shallow"][i]
            assert_allclose(recovered, arrays["target"][i], atol=1e-4)
            assert example["valid"].all()
            assert example["depth"] == arrays["depth"][i]

    def test_draws_follow_from_seed_epoch_and_index(self, arrays):
        one, two = (PairDataset(arrays, seed=1, epoch=2, repeat=2) for _ in range(2))
        two[7]  # what was drawn before does not matter
        for name in ("z", "valid", "residual", "depth"):
            assert_array_equal(one[15][name], two[15][name])
        other = [
            PairDataset(arrays, seed=2, epoch=2, repeat=2)[15],
            PairDataset(arrays, seed=1, epoch=3, repeat=2)[15],
            one[3],  # the same pair, visited before
        ]
        for example in other:
            assert (example["z"] != one[15]["z"]).any()

    def test_arrays_are_not_changed(self, arrays):
        copies = {name: values.copy() for name, values in arrays.items()}
        data = PairDataset(arrays)
        for i in range(12):
            data[i]
        for name, values in copies.items():
            assert_array_equal(arrays[name], values)

    @pytest.mark.parametrize("kinds", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.4, 0.3, 0.3)])
    def test_residual_is_unit_noise(self, arrays, kinds):
        # the two noises are independent, so their variances add: 1 + depth^2, whatever the kind
        data = PairDataset(arrays, kinds=kinds, repeat=3)
        check_unit_scatter([data[i] for i in range(len(data))])

    def test_validation_residual_is_unit_noise(self, arrays):
        data = PairDataset(arrays, augment=False)
        check_unit_scatter([data[i] for i in range(len(data))])

    @pytest.mark.usefixtures("no_sky")
    def test_split_is_independent_of_the_input(self):
        # on an empty sky what the input shows tells nothing about the noise of the target; with the deep
        # image itself as the target the two would be correlated
        arrays = simulated_arrays(12, size=64, flux=0)
        data = PairDataset(arrays, kinds=(0, 0, 1), repeat=3, split_range=(0.5, 2.0))
        examples = [data[i] for i in range(len(data))]
        good = [example["valid"] > 0 for example in examples]
        z = np.concatenate([e["z"][g] for e, g in zip(examples, good, strict=True)])
        target = z + np.concatenate([e["residual"][g] for e, g in zip(examples, good, strict=True)])
        assert abs(np.mean(z * target)) < 4 * target.std() * 2 / np.sqrt(z.size)

    def test_kinds_have_their_depths(self, arrays):
        def depths(**options):
            data = PairDataset(arrays, repeat=20, **options)
            return np.array([data[i]["depth"] for i in range(len(data))])

        given = arrays["depth"]
        assert set(depths(kinds=(1, 0, 0))) == set(given)
        noisier = depths(kinds=(0, 1, 0), max_extra_noise=4.0)
        assert noisier.max() <= given.max() * (1 + 1e-6)
        assert noisier.min() >= given.min() / 4 * (1 - 1e-6)
        split = np.log(depths(kinds=(0, 0, 1), split_range=(2.0, 50.0)))
        low, high = np.log([1 / 50, 1 / 2])
        assert low <= split.min() < split.max() <= high + 1e-6
        uniform = np.sort((split - low) / (high - low))
        distance = np.abs(uniform - (np.arange(240) + 0.5) / 240).max()
        assert distance < 1.95 / np.sqrt(240)

    def test_frequencies_of_kinds(self, arrays):
        # the depth tells the kind: pairs as they are, noisier by at most 2, split by at least 10
        options = {"max_extra_noise": 2.0, "split_range": (10.0, 20.0)}
        data = PairDataset(arrays, repeat=50, kinds=(2, 1, 1), **options)  # need not add up to one
        depth = np.array([data[i]["depth"] for i in range(len(data))])
        fractions = [np.isin(depth, arrays["depth"]).mean(), (depth <= 0.1).mean()]
        assert_allclose(fractions, [0.5, 0.25], atol=4 * np.sqrt(0.25 / depth.size))

    def test_holes_are_filled_and_told(self, arrays):
        data = PairDataset(arrays, repeat=10)
        examples = [data[i] for i in range(len(data))]
        with_holes = [example for example in examples if not example["valid"].all()]
        assert abs(len(with_holes) / len(examples) - 0.3) < 4 * np.sqrt(0.21 / 120)
        for example in with_holes:
            assert set(np.unique(example["valid"])) == {0, 1}
            assert np.isfinite(example["z"]).all()
            assert np.isfinite(example["residual"]).all()
        inside = np.concatenate([e["residual"][e["valid"] == 0] for e in with_holes])
        assert np.quantile(np.abs(inside), 0.9) < 4  # of order one, also on a source

    @pytest.mark.usefixtures("no_sky")
    def test_all_symmetries_occur(self, arrays):
        # a gradient shows the orientation; without holes and noise only it changes
        ramp = np.add.outer(3.0 * np.arange(16), np.arange(16)).astype(np.float32)[None]
        flat = {"shallow": ramp, "target": ramp, "sigma": np.ones_like(ramp)}
        flat |= {"deep": ramp, "deep_sigma": np.ones_like(ramp), "depth": np.ones(1, np.float32)}
        data = PairDataset(flat, kinds=(1, 0, 0), repeat=200)
        seen = {e["z"].tobytes() for e in map(data.__getitem__, range(200)) if e["valid"].all()}
        assert len(seen) == 8


def deep_arrays(n, size=96, width=0.0, peak=300.0):
    """Simulate what `prepare_deep` writes: a wide source, and noise of known correlation."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    scene = peak * np.exp(-(x**2 + y**2) / 200)
    noise = np.array([correlated_noise((size, size), width, rng) for _ in range(n)])
    scalar = np.ones(n, np.float32)
    return {"deep": (scene + noise).astype("f4"), "sky_sigma": scalar, "noise_width": width * scalar}


class TestDeepDataset:
    @pytest.mark.parametrize("width", [0.0, 0.5])
    def test_residual_is_unit_noise(self, width):
        # whatever blur, pixels and gain: input and target differ by their noises, 1 + depth^2
        data = DeepDataset(deep_arrays(10, width=width), repeat=6, size=40)
        check_unit_scatter([data[i] for i in range(len(data))])

    @pytest.mark.usefixtures("no_sky")
    def test_without_sources_target_and_input_are_independent(self):
        data = DeepDataset(deep_arrays(10, peak=0), repeat=6, size=40, noise_range=(2, 4))
        z, target = [], []
        for example in map(data.__getitem__, range(len(data))):
            good = example["valid"] > 0
            scale = max(example["depth"], 0.02)
            z.append(example["z"][good])
            target.append((example["z"] + example["residual"])[good] / scale)
        z, target = np.concatenate(z), np.concatenate(target)
        # the noise that both would share makes this sum depth x n; the blur correlates what is left
        depth = np.mean([data[i]["depth"] for i in range(len(data))])
        assert abs(np.mean(z * target)) < 0.3 * depth

    def test_ranges(self):
        arrays = deep_arrays(4)
        data = DeepDataset(arrays, repeat=50, size=96, noise_range=(3, 30), fwhm_range=(1.5, 8.0))
        depth = np.array([data[i]["depth"] for i in range(len(data))])
        # whole images have their own pixels; without blur the depth is 1 / sqrt(k^2 - 1), with it less
        assert depth.max() <= 1 / np.sqrt(8) * (1 + 1e-6)
        assert depth.min() < 0.01
        assert np.mean(depth > 1 / np.sqrt(15)) > 0.02  # only noise that is white may be so deep

    def test_noise_that_is_not_white_is_four_times_as_deep(self):
        data = DeepDataset(deep_arrays(4, width=0.8), repeat=50, size=96, noise_range=(1.5, 30))
        assert max(data[i]["depth"] for i in range(len(data))) <= 1 / np.sqrt(15) * (1 + 1e-6)

    def test_blocks(self):
        # with a linear ramp and next to no noise, the step between pixels shows the blocks: n^3
        ramp = np.tile(1e6 * np.arange(96.0), (2, 96, 1))
        arrays = {"deep": ramp.astype("f4"), "sky_sigma": np.ones(2, "f4"), "noise_width": np.zeros(2, "f4")}
        data = DeepDataset(arrays, repeat=40, size=32, sky_range=(1e15, 2e15), noise_range=(2, 2.01))
        rows = [data._draw(data._row(i), np.random.default_rng(i)) for i in range(80)]
        steps = [np.median(np.diff(row[2], axis=1)) / 1e6 for row in rows]
        assert {round(float(step)) for step in steps} == {1, 8, 27}
        assert {row[2].shape for row in rows} == {(32, 32)}

    def test_depth_holds_on_sources(self):
        # photon noise of a bright source is in both exposures: the target is as deep there as on the sky
        y, x = np.mgrid[:96, :96] - 47.5
        scene = (300 * np.exp(-(x**2 + y**2) / 200)).astype("f4")
        noise = np.random.default_rng(6).standard_normal((40, 96, 96), dtype="f4")
        one = np.ones(40, "f4")
        arrays = {"deep": scene + noise, "sky_sigma": one, "noise_width": 0 * one}
        data = DeepDataset(arrays, blur_share=0, max_block=1, sky_range=(20, 200), noise_range=(2, 5))
        bright, ratios = scene > 100, []
        for index in range(len(data)):
            _, sigma, target, depth, *_ = data._draw(data._row(index), np.random.default_rng(index))
            ratios.append(np.std(((target - scene) / sigma)[bright]) / depth)
        assert_allclose(np.mean(ratios), 1, rtol=0.03)

    def test_streams_differ(self):
        noises = []
        for stream in (1, 2):
            data = DeepDataset(deep_arrays(3, peak=0), size=96, noise_range=(50, 60), stream=stream)
            example = data[1]
            noises.append((example["z"] * example["valid"]).ravel())
        assert abs(np.corrcoef(noises)[0, 1]) < 0.1

    def test_draws_repeat(self):
        one, two = (DeepDataset(deep_arrays(3), seed=2, epoch=1, size=32)[2] for _ in range(2))
        for name, values in one.items():
            assert_array_equal(values, two[name])


def frame_arrays(n, size=64, width=0.0):
    """Simulate what `prepare_cameras` writes of frames: a source, known noise, a bad column."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    scene = 100 * np.exp(-(x**2 + y**2) / 100)
    sigma = np.sqrt(1 + 0.05 * scene)
    data = scene + sigma * np.array([correlated_noise((size, size), width, rng) for _ in range(n)])
    valid = np.ones((n, size, size), bool)
    valid[:, :, 20] = False
    kernel = np.zeros((9, 9))
    y, x = np.mgrid[-4:5, -4:5]
    kernel[:] = np.exp(-0.5 * (x**2 + y**2) / width**2) if width else (x == 0) & (y == 0)
    arrays = {"data": data, "sigma": np.broadcast_to(sigma, data.shape), "kernel": np.tile(kernel, (n, 1, 1))}
    arrays |= {"min_factor": np.full(n, 1.0 if width else 0.3)}
    return {name: values.astype("f4") for name, values in arrays.items()} | {"valid": valid, "use": valid}


class TestFrameDataset:
    @pytest.mark.parametrize("width", [0.0, 0.6])
    def test_input_and_target_are_independent(self, width):
        # whose noises would cancel out or add up otherwise: their difference has 1 + depth^2
        data = FrameDataset(frame_arrays(12, width=width), repeat=10, size=40)
        check_unit_scatter([data[i] for i in range(len(data))])

    def test_factors(self):
        for width, lowest in ((0.0, 0.3), (0.5, 1.0)):
            data = FrameDataset(frame_arrays(4, width=width), repeat=100, size=8)
            factor = 1 / np.array([data[i]["depth"] for i in range(len(data))])
            uniform = np.sort(np.log(factor / lowest) / np.log(10 / lowest))
            assert np.abs(uniform - (np.arange(400) + 0.5) / 400).max() < 1.95 / np.sqrt(400)

    def test_bad_pixels_do_not_teach(self):
        data = FrameDataset(frame_arrays(2), repeat=5)
        for example in map(data.__getitem__, range(10)):
            assert sorted(example) == ["depth", "residual", "use", "valid", "z"]
            assert (example["use"] == 0).sum() == 64
            assert not example["valid"][example["use"] == 0].any()
            assert np.isfinite(example["z"]).all()

    def test_draws_repeat(self):
        one, two = (FrameDataset(frame_arrays(3), seed=2, epoch=1, size=32)[2] for _ in range(2))
        for name, values in one.items():
            assert_array_equal(values, two[name])


class TestPairDataModule:
    @pytest.fixture
    def module(self, arrays, tmp_path):
        train, validation = tmp_path / "train.npz", tmp_path / "validation.npz"
        write_arrays(train, arrays)
        write_arrays(validation, {name: values[:3] for name, values in arrays.items()})
        module = PairDataModule(str(train), str(validation), batch_size=5, repeat=2)
        module.setup()
        return module

    def test_training_batches(self, module):
        batches = list(module.train_dataloader())
        assert len(batches) == 4  # 24 visits; the rest of 4 is dropped
        for batch in batches:
            assert batch["z"].shape == (5, 1, 64, 64)
            assert batch["depth"].shape == (5,)
            assert all(value.dtype == torch.float32 for value in batch.values())

    def test_batches_repeat_with_the_seed(self, module):
        for one, two in zip(module.train_dataloader(), module.train_dataloader(), strict=True):
            assert_array_equal(one["z"], two["z"])

    def test_validation_batches(self, module, arrays):
        (batch,) = module.val_dataloader()
        assert_allclose(batch["depth"], arrays["depth"][:3])
        assert batch["valid"].all()

    def test_every_pair_is_visited_equally(self, module):
        order = np.concatenate(module._batches(0, 1)[1])
        assert len(set(order)) == len(order) == 20  # the rest of 4 is dropped
        assert list(order) != sorted(order)

    def test_too_few_for_a_batch(self, module):
        options = dict(module.hparams) | {"batch_size": 25}
        with pytest.raises(ValueError, match="batch_size 25 exceeds the 24 examples"):
            PairDataModule(**options).setup()

    def test_deep_images_have_their_share(self, module, tmp_path):
        write_arrays(tmp_path / "deep.npz", deep_arrays(5))
        options = dict(module.hparams) | {"deep": str(tmp_path / "deep.npz"), "size": 32}
        mixed = PairDataModule(**options | {"deep_share": 0.4})
        mixed.setup()
        assert sum(map(len, mixed._batches(0, 1)[1])) == 40  # 24 visits of pairs are 60 %
        assert {tuple(batch["z"].shape[-2:]) for batch in mixed.train_dataloader()} == {(32, 32)}
        with pytest.raises(ValueError, match="deep_share must be at least 0 and less than 1"):
            PairDataModule(**options | {"deep_share": 1.0}).setup()

    def test_files_of_deep_images_are_seen_equally_often(self, module, tmp_path):
        names = [str(tmp_path / f"deep{number}.npz") for number in range(2)]
        for number, name in enumerate(names):
            write_arrays(name, deep_arrays(5 + 3 * number))
        mixed = PairDataModule(**dict(module.hparams) | {"deep": names, "size": 32, "deep_share": 0.4})
        mixed.setup()
        pairs, *deep = mixed._datasets(0, 32, 40)
        assert len(pairs) == 24
        assert [len(subset) for subset in deep] == [8, 8]
        assert [len(subset.dataset.arrays["deep"]) for subset in deep] == [5, 8]
        assert len({subset.dataset.stream for subset in deep} | {pairs.dataset.stream}) == 3

    def test_the_arrays_tell_the_data_set(self, module, arrays, tmp_path):
        files = {"deep": deep_arrays(5), "frames": frame_arrays(5), "pairs": arrays}
        for name, values in files.items():
            write_arrays(tmp_path / f"{name}.npz", values)
        names = [str(tmp_path / f"{name}.npz") for name in files]
        mixed = PairDataModule(**dict(module.hparams) | {"deep": names, "size": 32, "deep_share": 0.5})
        mixed.setup()
        _, *others = mixed._datasets(0, 32, 48)
        kinds = [type(subset.dataset) for subset in others if isinstance(subset, Subset)]
        assert kinds == [DeepDataset, FrameDataset, PairDataset]
        assert len(list(mixed.train_dataloader())) > 0

    def test_crops_of_pairs(self, module):
        options = dict(module.hparams) | {"size": 24}
        small = PairDataModule(**options)
        small.setup()
        assert next(iter(small.train_dataloader()))["z"].shape == (5, 1, 24, 24)
        assert next(iter(small.val_dataloader()))["z"].shape[-1] == 64


MIX = {"batch_size": 9, "repeat": 20, "size": 32, "deep_share": 0.2, "scene_share": 0.4, "wide_share": 0.25}


class TestMixOfSources:
    """Pairs of 64 pixels, deep images of 96, and scenes, in crops of 32 and 96."""

    @pytest.fixture
    def files(self, arrays, tmp_path):
        write_arrays(tmp_path / "pairs.npz", arrays)
        write_arrays(tmp_path / "deep.npz", deep_arrays(5))
        pairs = str(tmp_path / "pairs.npz")
        return {"train": pairs, "validation": pairs, "deep": str(tmp_path / "deep.npz")}

    def module(self, files, **options):
        module = PairDataModule(**files, **MIX | options)
        module.setup()
        return module

    def test_shares(self, files):
        data, batches = self.module(files)._batches(0, 1)
        kinds = np.repeat(np.arange(len(data)), [len(part) for part in data])
        counts = [np.bincount(kinds[batch], minlength=len(data)) for batch in batches]
        narrow, wide = ([count for count in counts if count.sum() == n] for n in (9, 1))
        assert len(narrow) + len(wide) == len(counts)
        assert len(wide) == round(len(narrow) / 3)
        sums = np.sum(narrow, axis=0)
        assert_allclose(sums[:3] / sums.sum(), [0.4, 0.2, 0.4], atol=0.02)
        # no pair is 96 pixels wide: deep images and scenes share as 1 to 2
        assert_allclose(np.sum(wide, axis=0)[3:] / len(wide), [1 / 3, 2 / 3], atol=0.03)

    def test_batches_have_one_size(self, files):
        sizes = {tuple(batch["z"].shape) for batch in self.module(files, repeat=4).train_dataloader()}
        assert sizes == {(9, 1, 32, 32), (1, 1, 96, 96)}

    def test_scenes_are_read_in_order(self, files):
        data, batches = self.module(files)._batches(0, 1)
        order = np.concatenate([batch for batch in batches if len(batch) == 9])
        first = len(data[0]) + len(data[1])
        scenes = order[(order >= first) & (order < first + len(data[2]))]
        assert_array_equal(scenes, np.sort(scenes))
        assert len(scenes) > 200

    def test_epochs_and_sources_differ(self, files):
        module = self.module(files)
        one, two = (module._batches(epoch, 1) for epoch in (0, 1))
        assert not all(np.array_equal(a, b) for a, b in zip(one[1], two[1], strict=False))
        streams = [getattr(part, "dataset", part).stream for part in one[0]]
        assert len(set(streams)) == len(streams)

    def test_two_processes_see_what_one_sees(self, files):
        module = self.module(files, batch_size=10)
        _, batches = module._batches(0, 2)
        assert all(len(batch) in (10, 2) for batch in batches)

    def test_exact_targets(self, files):
        module = self.module(files, noisy_scenes=False)
        assert module._datasets(0, 32, 100)[-1][0]["depth"] == 0

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"scene_share": 1.0}, "scene_share must be at least 0 and less than 1, not 1.0"),
            ({"wide_share": -0.1}, "wide_share must be at least 0 and less than 1, not -0.1"),
            ({"scene_share": 0.9}, "deep_share 0.2 and scene_share 0.9 leave nothing for pairs"),
            ({"size": 65}, "size 65 exceeds images of 64 pixels"),
            (
                {"scene_share": 0, "wide_size": 200},
                "wide_size 200 exceeds the images, and there are no scenes",
            ),
        ],
    )
    def test_bad_options(self, files, options, message):
        with pytest.raises(ValueError, match=message):
            self.module(files, **options)
