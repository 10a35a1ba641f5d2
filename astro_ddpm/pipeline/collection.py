# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Enhancement of many files, one after the other or on a Dask cluster.
"""

import hashlib
import logging
import os
import re
import secrets
import time
import warnings
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning

from astro_ddpm import __version__, provenance, zoo
from astro_ddpm.nddata import read_check, split_extension
from astro_ddpm.selfcheck import pool_tables, sentence
from astro_ddpm.utils import atomic_path, progress, remove_partials, require

from .files import ENHANCE_DEFAULTS, PLANES, enhance_file, find_difference, make_record
from .workers import is_loaded, locate_model, process_alone

__all__ = ["enhance_collection", "plane_path"]

log = logging.getLogger(__name__)

MANIFEST = "manifest.ecsv"
CHECKED = ("worst_before", "worst_after", "sky_bias", "stated_noise")
COLUMNS = {
    "input": "the image",
    "output": "the enhanced image, relative to the folder of this table",
    "status": "done, skipped (was done before), failed, or pending",
    "reason": "why it failed",
    "warnings": "what was warned of",
    "seed": "seed of the samples",
    "model_sha256": "SHA-256 of the weights of the model",
    "seconds": "time it took",
} | {name: comment for name, comment in provenance.KEYWORDS.values() if name in CHECKED}


@dataclass(frozen=True)
class Frame:
    """One file: its planes of noise and mask, where the result goes, and what is known of an earlier one."""

    input: Path
    output: Path
    planes: dict
    seed: int
    any_seed: bool  # an existing result with another seed is as good
    existed: bool  # there was a file in the place of the output before

    def row(self, status, reason="", messages=(), **values):
        """Make a row of the manifest: a value for each name of ``COLUMNS``."""
        row = {"input": str(self.input), "output": self.output.name, "status": status}
        row |= {"reason": _one_line(reason), "warnings": "; ".join(dict.fromkeys(map(_one_line, messages)))}
        row |= {"seed": self.seed, "model_sha256": ""} | dict.fromkeys(("seconds", *CHECKED), np.nan)
        return row | values


class Manifest:
    """The rows of all frames and what holds for all of them, written to a file while they change."""

    def __init__(self, path, rows, call):
        self._path, self._rows = path, rows
        versions = {name: version(name) for name in ("astropy", "numpy", "torch")}
        self._meta = {"versions": {"astro_ddpm": __version__} | versions} | call
        self._written = -np.inf

    def __enter__(self):
        self._write()
        return self

    def __exit__(self, *_):
        self._write()

    def update(self, index, row):
        """Replace a row, and write the file unless that was done in the last second."""
        self._rows[index] = row
        if time.monotonic() > self._written + 1:
            self._write()

    def pool_checks(self, location):
        """Pool the checks of the images of each camera (``INSTRUME``), whose outputs are in a folder."""
        cameras = {}
        for row in self._rows:
            if row["status"] in ("done", "skipped"):
                camera, table = read_check(location / row["output"])
                if table is not None:
                    cameras.setdefault(camera, []).append(table)
        checks = self._meta["checks"] = {}
        for name, tables in cameras.items():
            pooled = pool_tables(tables)
            checks[name] = {"sentence": sentence(pooled)} | {c: pooled[c].tolist() for c in pooled.colnames}

    def table(self):
        """Make a `~astropy.table.QTable` with descriptions of the columns."""
        columns = {name: [row[name] for row in self._rows] for name in COLUMNS}
        columns["seconds"] *= u.s
        return QTable(columns, meta=self._meta, descriptions=COLUMNS)

    def _write(self):
        with atomic_path(self._path, overwrite=True) as partial:
            self.table().write(partial, format="ascii.ecsv")
        self._written = time.monotonic()


def enhance_collection(
    collection, location, *, client=None, overwrite=False, seed=None, progress_bar=None, **options
):
    """
    Enhance many FITS images, on a Dask cluster if there is one.

    A frame that cannot be enhanced becomes a row of the manifest and does not stop the others. An interrupted
    call is continued by repeating it: an output is kept if it is complete and was made from the same contents
    of the input and its planes, with the same weights, options and (if it is given) seed. Any other file in
    its place is left alone, and the frame fails, unless ``overwrite`` is set.

    Parameters
    ----------
    collection : `~ccdproc.ImageFileCollection` or iterable of path-like
        The images, which may be compressed. The files of a collection that cannot be read count too, and
        its ``ext`` holds unless another is given.

    location : str or path-like
        The folder for the results; made if it does not exist. Each has the name of its input with the suffix
        ``.fits``, and names of folders in front as far as needed to tell inputs of the same name apart.

    client : `dask.distributed.Client`, optional
        The cluster that does the work, where all files have the same paths on all machines. Each worker does
        one frame at a time, with as many threads of PyTorch as it has itself.

    overwrite : bool, optional
        Whether to replace files in ``location`` that are not what this call would write.

    seed : int, optional
        The seed of a frame is derived from this and the name of its output, whatever the order and number
        of frames. If None, one is drawn and recorded.

    progress_bar : bool, optional
        Whether to show a progress bar; by default in terminals and notebooks, if it takes more than three
        seconds.

    **options
        Passed to `enhance_file` and `astro_ddpm.enhance`. The planes ``stddev``, ``variance``, ``weight``
        and ``mask`` are each a file for all frames; or a text with ``{path}``, ``{folder}`` or ``{stem}``
        for the path of the input, its folder, or its name without suffixes; or a function that returns the
        path of the plane, or None, for that of the input.

    Returns
    -------
    manifest : `~astropy.table.QTable`
        A row for each input, in their order: ``input``, ``output``, ``status`` ("done", "skipped" or
        "failed"), ``reason``, ``warnings``, ``seed``, ``model_sha256``, ``seconds``, and what the check
        found: the errors of the worst bin ``worst_before`` and ``worst_after``, ``sky_bias`` and
        ``stated_noise``. Its metadata hold, under ``checks``, the pooled tables of all images of a camera
        (the keyword INSTRUME). It is also in ``location`` as ``manifest.ecsv``, kept up to date while the
        call runs ("pending" is what has not been done).

    Raises
    ------
    ValueError
        If the model is unknown, two frames would have the same output, or an output would replace an input.

    TypeError
        If an option is unknown, ``collection`` is a single path, or a loaded model meets a ``client``.

    ImportError
        If ``client`` is given and Dask is not installed.

    OSError
        If ``location`` cannot be written to.
    """
    model = options.setdefault("model", ENHANCE_DEFAULTS["model"])
    _check_options(options, client)
    sha256 = model.sha256 if is_loaded(model) else zoo.load(model).sha256
    options["model"] = model if is_loaded(model) else locate_model(model)
    base_seed = secrets.randbits(31) if seed is None else int(seed)
    planes = {name: options.pop(name, None) for name in PLANES}
    if options.get("ext") is None and getattr(collection, "ext", 0):  # 0, the default, may hold no image
        options["ext"] = collection.ext
    location = Path(location).absolute()
    frames = _plan(_list_paths(collection), location, planes, base_seed, seed is None)

    location.mkdir(parents=True, exist_ok=True)
    given = {name: str(value) for name, value in (planes | options).items() if value is not None}
    call = {"model_sha256": sha256, "seed": base_seed, "options": given}
    manifest = Manifest(location / MANIFEST, [frame.row("pending") for frame in frames], call)
    work = _work_here if client is None else _work_on(client)
    results = work(frames, options, overwrite, sha256)
    with manifest, closing(results), progress(len(frames), show=progress_bar) as advance:
        for index, row in results:
            manifest.update(index, row)
            advance()
        manifest.pool_checks(location)
    remove_partials(location, [frame.output.name for frame in frames])
    return manifest.table()


def _check_options(options, client):
    unknown = options.keys() - ENHANCE_DEFAULTS.keys() - {"ext", "ignore_bits", *PLANES}
    require(not unknown, f"unknown options: {', '.join(sorted(unknown))}", TypeError)
    if not options.get("add_keyword", True):
        msg = "add_keyword must be True: the keywords tell a later call what has been done"
        raise ValueError(msg)
    if options.get("samples_file") is not None:
        msg = "samples_file is for one image; the samples of each frame are in its output"
        raise TypeError(msg)
    if client is not None and is_loaded(options["model"]):
        msg = "model must be a name or a path if there is a client: each worker loads it"
        raise TypeError(msg)


def _list_paths(collection):
    """Absolute paths of a collection or of an iterable."""
    if isinstance(collection, (str, os.PathLike)):
        msg = "collection must be an ImageFileCollection or an iterable of paths, not a single path"
        raise TypeError(msg)
    if hasattr(collection, "files_filtered"):
        collection = [Path(collection.location, name) for name in collection.files]
    return [Path(path).absolute() for path in collection]


def _plan(paths, location, planes, seed, any_seed):
    """Decide about output, planes and seed of every frame."""
    frames = []
    for path, name in zip(paths, _output_names(paths), strict=True):
        own = {key: plane_path(plane, Path(split_extension(path)[0])) for key, plane in planes.items()}
        own = {key: plane for key, plane in own.items() if plane is not None}
        digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
        own_seed = int.from_bytes(digest[:8], "big") >> 1  # below 2**63
        output = location / name
        frames.append(Frame(path, output, own, own_seed, any_seed, output.exists()))
    sources = [split_extension(frame.input)[0] for frame in frames]
    sources += [split_extension(p, frame.input)[0] for frame in frames for p in frame.planes.values()]
    sources = {os.path.realpath(file) for file in sources}
    for frame in frames:
        if os.path.realpath(frame.output) in sources:
            msg = f"location {location} must be another folder: {frame.output.name} there is an input"
            raise ValueError(msg)
    return frames


def _stem(path):
    """The name of a FITS file without its suffixes, and an extension of it."""
    file, ext = split_extension(path)
    stem = re.sub(r"(\.fits?|\.fts)?(\.(gz|bz2|fz|xz|zip|z))?$", "", Path(file).name, flags=re.IGNORECASE)
    return "_".join([stem, *re.findall(r"[\w-]+", ext or "")])


def _output_names(paths):
    """Name outputs after inputs, with as many folders in front as it takes to tell them apart."""
    folders = [0] * len(paths)
    while True:
        names = [_output_name(path, n) for path, n in zip(paths, folders, strict=True)]
        count = Counter(name.lower() for name in names)
        alike = [i for i, name in enumerate(names) if count[name.lower()] > 1]
        if not alike:
            return names
        if all(folders[i] >= len(paths[i].parts) for i in alike):
            files = " and ".join(str(paths[i]) for i in alike[:2])
            msg = f"collection must not hold inputs of one name in one folder: {files}"
            raise ValueError(msg)
        for i in alike:
            folders[i] += 1


def _output_name(path, n):
    """Stem of a file behind the names of its last n folders, with the suffix ``.fits``."""
    folders = path.parent.parts[1:]
    return "_".join([*folders[max(len(folders) - n, 0) :], _stem(path)]) + ".fits"


def plane_path(plane, path):
    """The plane that belongs to an image."""
    if callable(plane):
        plane = plane(path)
    if plane is None:
        return None
    plane = str(plane)
    for field, value in {"path": path, "folder": path.parent, "stem": _stem(path)}.items():
        plane = plane.replace(f"{{{field}}}", str(value))
    return plane if plane.startswith("[") else str(Path(plane).absolute())


def _enhance_frame(frame, options, overwrite, sha256):
    """Do one frame and return its row, whatever happens."""
    start = time.perf_counter()
    values = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AstropyUserWarning)
        try:
            status, header = _enhance_or_skip(frame, options, overwrite, sha256)
            reason, values = "", {"seed": header["DDPMSEED"], "model_sha256": header["DDPMSHA"]}
            values |= {name: value for name, value in provenance.read(header).items() if name in CHECKED}
        except Exception as error:
            status, reason = "failed", f"{type(error).__name__}: {error}"
    log.info("%s %s %s", frame.input, status, reason)
    messages = [str(warning.message) for warning in caught]
    return frame.row(status, reason, messages, seconds=time.perf_counter() - start, **values)


def _enhance_or_skip(frame, options, overwrite, sha256):
    """Status and header of a frame that is done now, or was before."""
    if frame.output.exists():
        record = make_record(frame.input, **frame.planes, **options) | {"DDPMSHA": sha256}
        if not frame.any_seed:
            record["DDPMSEED"] = frame.seed
        difference = find_difference(frame.output, record)
        if not difference:  # by an earlier call, or by a worker that was lost before it could tell
            return "skipped" if frame.existed else "done", fits.getheader(frame.output)
        if not overwrite:
            msg = f"output {frame.output} exists and {difference}; set overwrite to replace it"
            raise FileExistsError(msg)
    own = {"overwrite": overwrite, "seed": frame.seed, "progress_bar": False}
    enhanced = enhance_file(frame.input, frame.output, **frame.planes, **options | own)
    return "done", enhanced.meta


def _work_here(frames, *args):
    """Do the frames one after the other; yield their numbers and rows."""
    for index, frame in enumerate(frames):
        yield index, _enhance_frame(frame, *args)


def _work_on(client):
    """Make a function that has a Dask client do the frames, and yields numbers and rows as they finish."""
    try:
        from distributed import as_completed
    except ImportError:
        msg = "client needs Dask, which pip install 'astro_ddpm[dask]' installs"
        raise ImportError(msg) from None

    def work(frames, *args):
        pending = {}  # Dask repeats what a lost worker had done as long as anybody holds its future
        for index, frame in enumerate(frames):
            future = client.submit(_enhance_on_worker, frame, *args, pure=False)
            pending[future.key] = index, future
        try:
            for future in as_completed([future for _, future in pending.values()]):
                index, _ = pending.pop(future.key)
                try:
                    row = future.result()
                except Exception as error:  # the worker died too often, or cannot import this package
                    row = frames[index].row("failed", f"{type(error).__name__}: {error}")
                yield index, row
        finally:
            if pending:
                client.cancel([future for _, future in pending.values()])

    return work


def _enhance_on_worker(*args):
    with process_alone():
        return _enhance_frame(*args)


def _one_line(text):
    return " ".join(str(text).split())
