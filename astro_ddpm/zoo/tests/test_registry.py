# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the registry module.
"""

import errno
import json
import os
import pickle
import re
from dataclasses import replace

import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from astro_ddpm import zoo
from astro_ddpm.diffusion import FittedSolver
from astro_ddpm.nn import GuidedUNet, RAUNet
from astro_ddpm.zoo import registry


def make_model(seed=0, *, draws=True, **known):
    """Return a tiny model with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        raunet = RAUNet((4, 6), dropout=0.1)
        network = GuidedUNet((4, 6), embedding_channels=8) if draws else None
        with torch.no_grad():
            for part in filter(None, (raunet, network)):
                for parameter in part.parameters():
                    parameter += 0.1 * torch.randn_like(parameter)
    return zoo.Model(raunet, network, **known)


def read(path):
    """Return tensors and metadata of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        return {name: file.get_tensor(name) for name in names}, file.metadata()


class TensorSizes(TorchDispatchMode):
    """Write down the number of elements of every tensor that is made, but for those without memory."""

    def __init__(self, made):
        super().__init__()
        self.made = made

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.device.type != "meta":
            self.made.append(result.numel())
        return result


def test_loading_leaves_the_global_generator_alone(tmp_path):
    zoo.save(make_model(), tmp_path / "new.safetensors")
    state = torch.get_rng_state()
    zoo.load(tmp_path / "new.safetensors")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "saved.safetensors"
    zoo.save(make_model(), path)
    return path


class TestRoundTrip:
    @pytest.mark.parametrize("draws", [True, False])
    def test_equality(self, tmp_path, draws):
        model = make_model(
            draws=draws,
            ranges={"noise_ratio": [0.02, 0.5], "default_noise_ratio": 0.2},
            training={"steps": 12, "data": "HSC", "learning_rate": 1e-3},
        )
        path = tmp_path / "model.safetensors"
        sha256 = zoo.save(model, path)
        loaded = zoo.load(path)
        assert loaded.kind == model.kind == ("ddpm" if draws else "raunet")
        assert loaded.name == "model"
        assert loaded.sha256 == sha256
        assert re.fullmatch("[0-9a-f]{64}", sha256)
        assert loaded.ranges == model.ranges
        assert loaded.training == model.training
        parts = [(model.regressor, loaded.regressor)]
        parts += [(model.denoiser, loaded.denoiser)] if draws else []
        for one, two in parts:
            assert one.config == two.config
            weights = two.state_dict()
            assert weights.keys() == one.state_dict().keys()
            for name, value in one.state_dict().items():
                assert_array_equal(weights[name], value)

    def test_new_ranges_for_the_same_weights(self, saved, tmp_path):
        old = zoo.load(saved)
        ranges = {"psf_fwhm": [3.0, 5.5], "noise_correlation": [-0.1, 0.2], "peak_snr": [0.0, 700.0]}
        new = replace(old, ranges=old.ranges | ranges)
        assert zoo.save(new, tmp_path / "new.safetensors") == old.sha256
        assert zoo.load(tmp_path / "new.safetensors").ranges == old.ranges | ranges

    def test_solver(self, saved, tmp_path):
        parts = {"levels": [2.0, 0.4], "weights": [[[1, 2, 3]], [[4, 5, 6], [7, 8, 9]]], "widths": [0.1, 1]}
        solver = FittedSolver.from_dict(parts)
        assert zoo.load(saved).solver is None
        path = tmp_path / "solver.safetensors"
        zoo.save(replace(zoo.load(saved), solver=solver), path)
        assert zoo.load(path).solver == solver
        assert zoo.load(path).default_steps == 2

    def test_orientations(self, saved, tmp_path):
        assert zoo.load(saved).orientations is None
        path = tmp_path / "fast.safetensors"
        zoo.save(replace(zoo.load(saved), orientations=1), path)
        assert zoo.load(path).orientations == zoo.load(path).passes == 1

    def test_old_names(self, tmp_path):
        old = {"depth": [0.02, 0.5], "default_depth": 0.3}
        path = tmp_path / "old.safetensors"
        zoo.save(make_model(), path)
        tensors, metadata = read(path)
        save_file(tensors, path, metadata | {"ranges": json.dumps(old)})
        assert zoo.load(path).ranges == {"noise_ratio": [0.02, 0.5], "default_noise_ratio": 0.3}

    def test_wrong_ranges(self):
        for limits in ([5, 3], [1.0], [1, 2, 3]):
            with pytest.raises(ValueError, match=r"ranges\['psf_fwhm'\] must be \[low, high\]"):
                make_model(ranges={"psf_fwhm": limits})

    def test_same_results(self, saved):
        model = make_model()
        z, valid = torch.randn(1, 1, 9, 8), torch.ones(1, 1, 9, 8)
        for a, b in zip(model.estimate(z, valid), zoo.load(saved).estimate(z, valid), strict=True):
            assert_array_equal(a, b)

    def test_saved_again_has_the_same_sha256(self, saved, tmp_path):
        # of the weights; safetensors writes the metadata in any order, so the files may differ
        assert zoo.save(zoo.load(saved), tmp_path / "again.safetensors") == zoo.load(saved).sha256

    def test_memory_layout_does_not_matter(self, saved, tmp_path):
        # training uses channels_last
        model = make_model()
        model.regressor.to(memory_format=torch.channels_last)
        model.denoiser.to(memory_format=torch.channels_last)
        assert zoo.save(model, tmp_path / "last.safetensors") == zoo.load(saved).sha256

    def test_sha256_tells_weights_apart(self, saved, tmp_path):
        path = tmp_path / "other.safetensors"
        assert zoo.save(make_model(1), path) != zoo.load(saved).sha256

    def test_loads_once(self, saved):
        assert zoo.load(saved) is zoo.load(str(saved))

    def test_replaced_file_is_loaded_anew(self, saved):
        old = zoo.load(saved)
        sha256 = zoo.save(make_model(1), saved, overwrite=True)
        os.utime(saved, ns=(10**18, 10**18))
        assert zoo.load(saved).sha256 == sha256 != old.sha256

    def test_relative_path(self, saved, monkeypatch):
        monkeypatch.chdir(saved.parent)
        assert zoo.load("saved.safetensors") is zoo.load(saved)


class TestNames:
    @pytest.fixture
    def home(self, tmp_path, monkeypatch):
        monkeypatch.setattr(registry, "HOME", tmp_path / "home")
        (tmp_path / "home").mkdir()
        for seed, name in enumerate(["beta", "alpha"]):
            zoo.save(make_model(seed), tmp_path / "home" / f"{name}.safetensors")
        return tmp_path / "home"

    def test_list(self, home):
        (home / "notes.txt").write_text("not a model")
        assert zoo.list_models() == ["alpha", "beta"]

    def test_load(self, home):
        model = zoo.load("alpha")
        assert model.name == "alpha"
        assert model.sha256 == zoo.load(home / "alpha.safetensors").sha256
        assert model.sha256 != zoo.load("beta").sha256

    @pytest.mark.parametrize("name", ["gamma", "alpha.safetensors", "", "../home/alpha"])
    def test_unknown_name_lists_the_known(self, home, name, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        message = f"unknown model '{re.escape(name or '.')}'|unknown model ''"
        with pytest.raises(ValueError, match=message) as error:
            zoo.load(name)
        assert "alpha, beta" in str(error.value)

    def test_folder_is_no_model(self, home):
        with pytest.raises(ValueError, match="neither a file nor one of"):
            zoo.load(home)


class TestDamage:
    @pytest.mark.parametrize("where", [0.3, 0.6, 1.0])
    def test_flipped_bit(self, saved, tmp_path, where):
        content = bytearray(saved.read_bytes())
        start = 8 + int.from_bytes(content[:8], "little")  # behind the header
        position = min(int(start + where * (len(content) - start)), len(content) - 1)
        content[position] ^= 1
        path = tmp_path / "flipped.safetensors"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"flipped\.safetensors is damaged: the SHA-256"):
            zoo.load(path)

    @pytest.mark.parametrize("length", [0, 4, 100, -1])
    def test_truncated(self, saved, tmp_path, length):
        path = tmp_path / "truncated.safetensors"
        path.write_bytes(saved.read_bytes()[:length])
        with pytest.raises(ValueError, match="not a readable safetensors file"):
            zoo.load(path)

    def test_swapped_tensors(self, saved, tmp_path):
        # all values are there, under each other's names
        tensors, metadata = read(saved)
        one, two = "raunet.mean_head.0.gain", "raunet.std_head.0.gain"
        tensors[one], tensors[two] = tensors[two], tensors[one]
        path = tmp_path / "swapped.safetensors"
        save_file(tensors, path, metadata)
        with pytest.raises(ValueError, match="SHA-256"):
            zoo.load(path)

    def test_pickle_is_never_executed(self, tmp_path):
        class Trojan:
            def __reduce__(self):
                return (os.mkdir, (str(tmp_path / "owned"),))

        for name, write in (("pickle", pickle.dump), ("torch", torch.save)):
            path = tmp_path / f"{name}.safetensors"
            with path.open("wb") as file:
                write(Trojan(), file)
            with pytest.raises(ValueError, match="not a readable safetensors file"):
                zoo.load(path)
        assert not (tmp_path / "owned").exists()

    def test_foreign_safetensors(self, tmp_path):
        for metadata in (None, {"format": "pt"}):
            path = tmp_path / f"{bool(metadata)}.safetensors"
            save_file({"weight": torch.ones(3)}, path, metadata)
            with pytest.raises(ValueError, match="was not written by this package"):
                zoo.load(path)

    @pytest.mark.parametrize(
        "architecture",
        [
            {"raunet": {"channels": [4, 8]}},  # other sizes
            {"raunet": {"channels": [4, 6, 8]}},  # more of them
            {"raunet": {"channels": [4, 6], "colour": "red"}},  # an unknown option
            {"raunet": {"channels": []}},
            {"raunet": None},
            {"resnet": {"channels": [4, 6]}},  # an unknown network
            {"network": {"channels": [4, 6], "embedding_channels": 8}},  # no RAUNet
            {},
            ["raunet"],
            "raunet",
        ],
    )
    def test_wrong_architecture(self, saved, tmp_path, architecture):
        tensors, metadata = read(saved)
        metadata["architecture"] = json.dumps(architecture)
        path = tmp_path / "wrong.safetensors"
        save_file(tensors, path, metadata)
        with pytest.raises(ValueError, match="do not fit its architecture"):
            zoo.load(path)

    @pytest.mark.parametrize("key", ["architecture", "ranges", "training"])
    def test_incomplete_metadata(self, saved, tmp_path, key):
        tensors, metadata = read(saved)
        for name, value in (("missing", None), ("broken", "{")):
            changed = metadata | {key: value}
            path = tmp_path / f"{name}.safetensors"
            save_file(tensors, path, {k: v for k, v in changed.items() if v is not None})
            with pytest.raises(ValueError, match="holds weights that do not fit"):
                zoo.load(path)

    @pytest.mark.parametrize("claim", [10 * 10**9, 2**63 - 1, 2**64 - 1])
    def test_claim_of_a_huge_header(self, saved, tmp_path, claim):
        path = tmp_path / "header.safetensors"
        path.write_bytes(claim.to_bytes(8, "little") + saved.read_bytes()[8:])
        with pytest.raises(ValueError, match="not a readable safetensors file"):
            zoo.load(path)

    def test_claim_of_a_huge_tensor(self, saved, tmp_path):
        content = saved.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        header["raunet.stem.bank.weight"]["shape"][0] = 10**9
        header["raunet.stem.bank.weight"]["data_offsets"][1] = 10**11
        changed = json.dumps(header).encode()
        path = tmp_path / "tensor.safetensors"
        path.write_bytes(len(changed).to_bytes(8, "little") + changed + content[end:])
        with pytest.raises(ValueError, match="not a readable safetensors file"):
            zoo.load(path)

    @pytest.mark.parametrize(
        "channels",
        [
            [5000, 5000],  # gigabytes of weights
            [10**6] * 3,
            [2**62],
            [10**30],
            [4] * 14,  # gigabytes for the normalisation of the starlet planes
            [4] * 10**5,  # as many modules
            [0, 4],
            [-4],
            [4.0, 6.0],
            ["4"],
            [True],
        ],
    )
    @pytest.mark.parametrize("part", ["raunet", "network"])
    def test_impossible_channels_take_no_memory(self, saved, tmp_path, monkeypatch, part, channels):
        # the largest tensor that is made before the refusal belongs to the filters of the stem
        tensors, metadata = read(saved)
        architecture = json.loads(metadata["architecture"])
        architecture[part]["channels"] = channels
        path = tmp_path / "channels.safetensors"
        save_file(tensors, path, metadata | {"architecture": json.dumps(architecture)})
        made = []
        with TensorSizes(made), pytest.raises(ValueError, match="do not fit its architecture"):
            zoo.load(path)
        assert max(made, default=0) <= 10**4

    @pytest.mark.parametrize(
        "option",
        [{"embedding_channels": 2**40}, {"embedding_channels": 10**30}, {"dropout": 7}]
        + [{"patch": value} for value in (0, -1, 2.0, "2", None, True, 65, 2**40, 10**30)],
    )
    def test_impossible_options(self, saved, tmp_path, option):
        tensors, metadata = read(saved)
        architecture = json.loads(metadata["architecture"])
        architecture["network"] |= option
        path = tmp_path / "option.safetensors"
        save_file(tensors, path, metadata | {"architecture": json.dumps(architecture)})
        with pytest.raises(ValueError, match="do not fit its architecture"):
            zoo.load(path)

    def test_endless_metadata(self, saved, tmp_path):
        tensors, metadata = read(saved)
        path = tmp_path / "endless.safetensors"
        save_file(tensors, path, metadata | {"ranges": "[" + "0," * 10**6 + "0]"})
        with pytest.raises(ValueError, match="metadata are longer than"):
            zoo.load(path)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite(self, tmp_path, value):
        model = make_model()
        model.regressor.mean_head[2].weight.fill_(value)
        path = tmp_path / "nan.safetensors"
        zoo.save(model, path)
        with pytest.raises(ValueError, match=r"nan\.safetensors holds weights that are not finite"):
            zoo.load(path)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int32])
    def test_weights_of_another_dtype(self, saved, tmp_path, dtype):
        tensors, metadata = read(saved)
        path = tmp_path / "dtype.safetensors"
        save_file({key: tensor.to(dtype) for key, tensor in tensors.items()}, path, metadata)
        with pytest.raises(ValueError, match=r"do not fit its architecture: .* is .* and should be"):
            zoo.load(path)

    def test_additional_weights(self, saved, tmp_path):
        tensors, metadata = read(saved)
        path = tmp_path / "more.safetensors"
        save_file(tensors | {"raunet.more": torch.ones(3)}, path, metadata)
        with pytest.raises(ValueError, match=r"raunet\.more is .* and should be missing"):
            zoo.load(path)

    @pytest.mark.parametrize(
        "change",
        [
            {"temperature": "nan"},
            {"temperature": "-1"},
            {"ranges": '{"noise_ratio": ["a", "b"]}'},
            {"ranges": '{"noise_ratio": [0, Infinity]}'},
            {"ranges": '{"default_noise_ratio": "0.2"}'},
            {"ranges": '{"default_noise_ratio": -1}'},
            {"ranges": "[1, 2]"},
            {"training": '"words"'},
            {"orientations": "3"},
            {"orientations": "all"},
            {"solver": "[]"},
            {"solver": '{"levels": [1], "weights": [[[0, 0, NaN]]], "widths": [0.1, 1]}'},
            {"solver": '{"levels": [1], "weights": [[[0, 0]]], "widths": [0.1, 1]}'},
        ],
    )
    def test_impossible_metadata(self, saved, tmp_path, change):
        tensors, metadata = read(saved)
        path = tmp_path / "metadata.safetensors"
        save_file(tensors, path, metadata | change)
        with pytest.raises(ValueError, match="holds weights that do not fit"):
            zoo.load(path)


class TestSave:
    def test_refuses_to_overwrite(self, saved):
        before = saved.read_bytes()
        with pytest.raises(FileExistsError, match=r"saved\.safetensors exists; set overwrite"):
            zoo.save(make_model(1), saved)
        assert saved.read_bytes() == before
        zoo.save(make_model(1), saved, overwrite=True)
        assert saved.read_bytes() != before

    @pytest.mark.parametrize("name", ["model.pt", "model", "model.safetensors.gz"])
    def test_wrong_suffix(self, tmp_path, name):
        with pytest.raises(ValueError, match=r"path must end in \.safetensors, not"):
            zoo.save(make_model(), tmp_path / name)
        assert not list(tmp_path.iterdir())

    def test_nothing_else_is_left(self, saved):
        assert [path.name for path in saved.parent.iterdir()] == ["saved.safetensors"]

    def test_failure_leaves_the_old_file(self, saved, monkeypatch):
        before = saved.read_bytes()

        def fail(source, target):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="No space"):
            zoo.save(make_model(1), saved, overwrite=True)
        assert saved.read_bytes() == before
        assert list(saved.parent.iterdir()) == [saved]

    def test_metadata_is_readable_without_the_package(self, saved):
        tensors, metadata = read(saved)
        assert metadata["format"] == "astro_ddpm model 1"
        assert json.loads(metadata["architecture"])["raunet"]["channels"] == [4, 6]
        assert {name.split(".")[0] for name in tensors} == {"raunet", "network"}
        assert all(tensor.dtype == torch.float32 for tensor in tensors.values())


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'Network'"):
        zoo.Network  # noqa: B018 - the access is the test
