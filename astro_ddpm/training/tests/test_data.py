# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the data module.
"""

import numpy as np
import pytest
import torch
from astropy.utils.exceptions import AstropyDeprecationWarning
from numpy.testing import assert_allclose, assert_array_equal

from astro_ddpm.training import (
    DeepDataset,
    FrameDataset,
    PairDataModule,
    PairDataset,
    SceneDataset,
    examples,
)
from astro_ddpm.training.arrays import write_arrays
from astro_ddpm.training.examples import ExampleDataset
from astro_ddpm.training.tests.helpers import deep_arrays, frame_arrays, simulated_arrays


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

    def test_validation_shows_pairs_as_they_are(self, arrays, monkeypatch):
        monkeypatch.setattr(examples, "remaining_sky", np.zeros_like)
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
        module = PairDataModule(str(train), str(validation), batch_size=5, epoch_steps=4)
        module.setup()
        return module

    def test_training_batches(self, module):
        batches = list(module.train_dataloader())
        assert len(batches) == 4
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
        visits = np.concatenate(module._plan(0)[1])[:, 1]
        assert len(set(visits)) == 20  # always anew
        assert list(visits) != sorted(visits)
        assert set(np.bincount(visits % 12, minlength=12)) == {1, 2}

    def test_crops_of_pairs(self, module):
        small = PairDataModule(**dict(module.hparams) | {"size": 24})
        small.setup()
        assert next(iter(small.train_dataloader()))["z"].shape == (5, 1, 24, 24)
        assert next(iter(small.val_dataloader()))["z"].shape[-1] == 64

    def test_deprecated_deep_files(self, module, tmp_path):
        names = [str(tmp_path / f"deep{number}.npz") for number in range(2)]
        for name in names:
            write_arrays(name, deep_arrays(5))
        options = dict(module.hparams) | {"deep": names, "deep_share": 0.4, "scene_share": 0.1}
        with pytest.warns(AstropyDeprecationWarning, match="give all files and their shares as train"):
            (mixed := PairDataModule(**options)).setup()
        _, shares = mixed._datasets(0, 64, 0)
        assert_allclose(shares, [0.5, 0.2, 0.2, 0.1])


class TestMixOfSources:
    """Pairs of 64 pixels, deep images and frames of 96, and scenes, in crops of 32 and 96."""

    @pytest.fixture
    def folder(self, arrays, tmp_path):
        write_arrays(tmp_path / "pairs.npz", arrays)
        write_arrays(tmp_path / "deep.npz", deep_arrays(5))
        write_arrays(tmp_path / "frames.npz", frame_arrays(4, size=96))
        return tmp_path

    def module(self, folder, **options):
        mix = {"train": {"pairs.npz": 4, "deep.npz": 1, "frames.npz": 1}, "validation": "pairs.npz"}
        mix |= {"size": {32: 0.75, 96: 0.25}, "scene_share": 0.4, "batch_size": 9, "epoch_steps": 400}
        module = PairDataModule(folder=str(folder), **mix | options)
        module.setup()
        return module

    def test_the_arrays_tell_the_data_set(self, folder):
        data, _ = self.module(folder)._datasets(0, 32, 0)
        assert [type(source) for source in data] == [PairDataset, DeepDataset, FrameDataset, SceneDataset]
        data, _ = self.module(folder, scene_share=0.0)._datasets(0, 96, 0)
        assert [type(source) for source in data] == [DeepDataset, FrameDataset]  # which are wide enough

    def test_shares(self, folder):
        data, batches = self.module(folder)._plan(0)
        narrow, wide = (np.concatenate([b for b in batches if len(b) == n])[:, 0] for n in (9, 1))
        assert len(narrow) / 9 + len(wide) == 400
        assert_allclose(len(wide) / 400, 0.25, atol=0.06)
        assert_allclose(np.bincount(narrow) / len(narrow), [0.4, 0.1, 0.1, 0.4], atol=0.03)
        # no pair is 96 pixels wide: deep images, frames and scenes share as 1 to 1 to 4
        assert_allclose(np.bincount(wide)[4:] / len(wide), [1 / 6, 1 / 6, 4 / 6], atol=0.13)
        assert len(data) == 7

    def test_batches_have_one_size(self, folder):
        loader = self.module(folder, epoch_steps=12).train_dataloader()
        assert {tuple(batch["z"].shape) for batch in loader} == {(9, 1, 32, 32), (1, 1, 96, 96)}

    def test_scenes_are_read_in_order(self, folder):
        _, batches = self.module(folder)._plan(0)
        places = np.concatenate([batch for batch in batches if len(batch) == 9])
        scenes = places[places[:, 0] == 3, 1]
        assert_array_equal(scenes, np.arange(len(scenes)))

    def test_epochs_and_sources_differ(self, folder):
        module = self.module(folder)
        one, two = (module._plan(epoch) for epoch in (0, 1))
        assert not all(np.array_equal(a, b) for a, b in zip(one[1], two[1], strict=True))
        streams = [source.stream for source in one[0]]
        assert len(set(streams)) == len(streams)
        assert {source.epoch for source in two[0]} == {1}

    def test_two_processes_see_what_one_sees(self, folder):
        _, batches = self.module(folder, batch_size=10)._plan(0, 2)
        assert {len(batch) for batch in batches} == {10, 2}

    def test_workers_make_the_same(self, folder):
        loaders = [self.module(folder, epoch_steps=6, workers=n).train_dataloader() for n in (0, 1)]
        for one, two in zip(*loaders, strict=True):
            for name in one:
                assert_array_equal(one[name], two[name])

    def test_kinds_of_targets(self, folder):
        exact = self.module(folder, noisy_scenes=False)
        assert exact._datasets(0, 32, 0)[0][-1][0]["depth"] == 0
        deeper = self.module(folder, frame_split=(4.0, 10.0))
        frames = deeper._datasets(0, 32, 0)[0][2]
        assert all(frames[number]["depth"] <= 0.25 for number in range(20))

    def test_pairs_without_a_deep_image_are_not_split(self, folder, arrays):
        plain = {name: plane for name, plane in arrays.items() if not name.startswith("deep")}
        write_arrays(folder / "plain.npz", plain)
        module = self.module(folder, train="plain.npz", kinds=(1, 1, 98))
        data = module._datasets(0, 32, 0)[0][0]
        assert_allclose(data.kinds, [0.5, 1])
        check_unit_scatter([data[number] for number in range(10)])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"scene_share": 1.0}, "scene_share must be at least 0 and less than 1, not 1.0"),
            ({"train": {}}, "train must name at least one file"),
            ({"size": {32: 0.0}}, "the share in size of 32 must be positive, not 0.0"),
            ({"train": {"pairs.npz": -1}}, r"the share in train of pairs\.npz must be positive, not -1"),
            ({"size": 65}, "size 65 exceeds images of 64 pixels"),
            (
                {"scene_share": 0, "size": {32: 1, 200: 1}},
                "size 200 exceeds the images, and there are no scenes",
            ),
        ],
    )
    def test_bad_options(self, folder, options, message):
        with pytest.raises(ValueError, match=message):
            self.module(folder, **options)

    @pytest.mark.parametrize("name", ["train", "validation"])
    def test_missing_file(self, folder, name):
        with pytest.raises(FileNotFoundError, match=f"{name} names .*none.npz, which does not exist"):
            self.module(folder, **{name: "none.npz"})
