# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Find, load and save trained models.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astro_ddpm.utils import atomic_path

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .model import Model

__all__ = ["list_models", "load", "save"]

HOME = Path(__file__).parent
FORMAT = "astro_ddpm model 1"
MAX_RESOLUTIONS = 8
MAX_METADATA = 1_000_000
PARTS = {"raunet": "regressor", "network": "denoiser"}  # what files call the networks of a model


def list_models() -> list[str]:
    """
    List the models that ship with the package.

    Returns
    -------
    names : list of str
        Names that `load` and `astro_ddpm.enhance` understand.

    Examples
    --------
    >>> from astro_ddpm import zoo
    >>> zoo.list_models()
    ['ddpm', 'raunet', 'raunet-fast']
    """
    return sorted(path.stem for path in HOME.glob("*.safetensors"))


def load(name: "str | os.PathLike[str] | None" = None) -> "Model":
    """
    Load a model.

    Parameters
    ----------
    name : str or path-like, optional
        A name from `list_models`, or the path of a ``.safetensors`` file written by `save`;
        ``astro_ddpm.conf.default_model`` if None.

    Returns
    -------
    model : `~astro_ddpm.zoo.Model`
        The model, ready to use. Loading the same file again returns the same object.

    Raises
    ------
    ValueError
        If there is no such model, or the file is not an intact model of this package: another format, weights
        that do not fit the architecture or are not finite, or a SHA-256 that differs from the recorded one.

    OSError
        If the file cannot be read.

    Notes
    -----
    A file is not trusted. Nothing in it is executed, and before a weight is read or memory taken for a
    network, the shape and dtype of every weight is compared with the architecture.
    """
    from astro_ddpm.configuration import conf

    name = conf.default_model if name is None else name
    path = HOME / f"{name}.safetensors" if str(name) in list_models() else Path(name)
    if not path.is_file():
        msg = f"unknown model {str(name)!r}: neither a file nor one of {', '.join(list_models())}"
        raise ValueError(msg)
    stat = path.stat()
    return _loader(conf.cached_models)(path.resolve(), stat.st_ino, stat.st_mtime_ns, stat.st_size)


@cache
def _loader(number: int) -> "Callable[[Path, int, int, int], Model]":
    """Return `_load` with a memory for a number of models."""
    return lru_cache(maxsize=number)(_load)


def _load(path: Path, _inode: int, _mtime: int, _size: int) -> "Model":
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                msg = f"model {path} was not written by this package (format {metadata.get('format')!r})"
                raise ValueError(msg)
            with _explain(path):
                _check_layout(file, metadata)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        msg = f"model {path} is not a readable safetensors file: {error}"
        raise ValueError(msg) from None
    if metadata.get("sha256") != _digest(tensors):
        msg = f"model {path} is damaged: the SHA-256 of its weights is not the recorded one"
        raise ValueError(msg)
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        msg = f"model {path} holds weights that are not finite"
        raise ValueError(msg)
    with _explain(path):
        return _build(path, tensors, metadata)


@contextmanager
def _explain(path: Path) -> Iterator[None]:
    """Turn whatever a strange description of a network leads to into one error."""
    try:
        yield
    except (ArithmeticError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        msg = f"model {path} holds weights that do not fit its architecture: {error}"
        raise ValueError(msg) from None


def _make_networks(metadata: Mapping[str, str], device: str) -> dict[str, Any]:
    """Make the networks that the metadata describe."""
    import torch

    from astro_ddpm.nn import GuidedUNet, RAUNet

    makers = {"raunet": RAUNet, "network": GuidedUNet}
    networks: dict[str, Any] = {}
    for part, config in json.loads(metadata["architecture"]).items():
        channels = config["channels"]
        if not (1 <= len(channels) <= MAX_RESOLUTIONS and all(type(c) is int and c > 0 for c in channels)):
            msg = f"{part} must have 1 to {MAX_RESOLUTIONS} positive numbers of channels"
            raise ValueError(msg)
        patch = config.get("patch", 1)
        largest = 2 ** (MAX_RESOLUTIONS - len(channels))
        if not (type(patch) is int and 1 <= patch <= largest):
            msg = f"{part} must have patches of 1 to {largest} pixels, not {patch}"
            raise ValueError(msg)
        with torch.device(device):
            networks[part] = makers[part](**config)
    return networks


def _weights(networks: "Mapping[str, nn.Module]") -> "dict[str, Tensor]":
    """All weights of networks by their names in a file."""
    states = {part: network.state_dict() for part, network in networks.items()}
    return {f"{part}.{key}": tensor for part, state in states.items() for key, tensor in state.items()}


def _check_layout(file: Any, metadata: Mapping[str, str]) -> None:
    """Compare the shape and dtype of every weight with the architecture; nothing is allocated."""
    if sum(map(len, metadata.values())) > MAX_METADATA:
        msg = f"the metadata are longer than {MAX_METADATA} characters"
        raise ValueError(msg)
    weights = _weights(_make_networks(metadata, "meta"))
    expected = {key: ("F32", list(tensor.shape)) for key, tensor in weights.items()}
    slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    found = {key: (part.get_dtype(), part.get_shape()) for key, part in slices.items()}
    for key in sorted({*expected, *found}):
        if expected.get(key) != found.get(key):
            msg = f"{key} is {found.get(key, 'missing')} and should be {expected.get(key, 'missing')}"
            raise ValueError(msg)


def _build(path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> "Model":
    """Make the networks and give them their weights."""
    import torch

    from astro_ddpm.diffusion import FittedSolver

    from .model import Model

    with torch.random.fork_rng(devices=[]):  # weights are drawn before they are replaced
        networks = _make_networks(metadata, "cpu")
    for part, network in networks.items():
        own = {key.removeprefix(f"{part}."): t for key, t in tensors.items() if key.startswith(f"{part}.")}
        network.load_state_dict(own)
    return Model(
        **{PARTS[part]: network for part, network in networks.items()},
        name=path.stem,
        sha256=metadata["sha256"],
        ranges=json.loads(metadata["ranges"]),
        training=json.loads(metadata["training"]),
        temperature=float(metadata.get("temperature", 1)),
        one_step=metadata.get("one_step") == "True",
        orientations=int(metadata["orientations"]) if "orientations" in metadata else None,
        solver=FittedSolver.from_dict(json.loads(metadata["solver"])) if "solver" in metadata else None,
    )


def _digest(tensors: "Mapping[str, Tensor]") -> str:
    """SHA-256 of names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        array = tensors[key].detach().cpu().contiguous().numpy()
        digest.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save(model: "Model", path: "str | os.PathLike[str]", *, overwrite: bool = False) -> str:
    """
    Save a model as a safetensors file, and return the SHA-256 of its weights.

    Architecture, training ranges, history and the SHA-256 of the weights go into its metadata.

    Parameters
    ----------
    model : `~astro_ddpm.zoo.Model`
        The model.

    path : str or path-like
        The file, with the suffix ``.safetensors``, else ValueError.

    overwrite : bool, optional
        Whether to replace an existing file; FileExistsError if not.
    """
    from safetensors.torch import save as to_bytes

    path = Path(path)
    if path.suffix != ".safetensors":
        msg = f"path must end in .safetensors, not {path.name!r}"
        raise ValueError(msg)
    parts = dict(zip(PARTS, model.networks, strict=False))
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in _weights(parts).items()}
    sha256 = _digest(tensors)
    metadata = {
        "format": FORMAT,
        "architecture": json.dumps({name: network.config for name, network in parts.items()}),
        "ranges": json.dumps(model.ranges),
        "training": json.dumps(model.training),
        "temperature": str(model.temperature),
        "one_step": str(model.one_step),
        "sha256": sha256,
    }
    if model.solver is not None:
        metadata["solver"] = json.dumps(model.solver.to_dict())
    if model.orientations is not None:
        metadata["orientations"] = str(model.orientations)
    with atomic_path(path, overwrite=overwrite) as partial:
        partial.write_bytes(to_bytes(tensors, metadata))
    return sha256
