# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A training run: from a file of settings to a model, through interruptions.
"""

import re
import warnings
from argparse import ArgumentError
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, Timer
from pytorch_lightning.cli import LightningCLI
from pytorch_lightning.loggers import CSVLogger

from astro_ddpm import __version__, zoo
from astro_ddpm.core import knows_bfloat16
from astro_ddpm.utils import require

from .data import PairDataModule
from .ema import PowerEMA
from .modules import TrainingModule
from .ranges import measure_ranges, merge_ranges
from .scenes import SceneDataset

__all__ = ["train"]

HOME = Path(__file__).parent / "configs"
VAIN_WARNINGS = (
    r"Checkpoint directory .* exists",  # it shall: the run may be resumed
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own call of torch
    r"Found \d+ module\(s\) in eval mode",  # the RAUNet that guides the diffusion
    r"Precision .* is not supported by the model summary",
    r"The \.grad attribute of a Tensor that is not a leaf",  # the compiler, where a guide is computed before
)


class Repeatable(pl.Callback):
    """
    Make a run repeat itself, be it interrupted or not.

    PyTorch is seeded at every batch from seed, step, process and batch, so a resumed run draws what it would
    have drawn. A checkpoint of a run with other settings is refused.
    """

    def __init__(self, seed, settings):
        self.seed, self.settings = seed, settings

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        """Seed the batch; a step takes several where gradients accumulate."""
        numbers = [self.seed, trainer.global_step, trainer.global_rank, batch_idx]
        sequence = np.random.SeedSequence(numbers)
        torch.manual_seed(int(sequence.generate_state(1)[0]))

    def state_dict(self):
        """Return what goes into a checkpoint."""
        return {"settings": self.settings}

    def load_state_dict(self, state_dict):
        """Compare with the settings of a checkpoint."""
        saved = state_dict["settings"]
        changed = [key for key in saved | self.settings if saved.get(key) != self.settings.get(key)]
        if changed:
            msg = (
                f"trainer.default_root_dir holds a run that was interrupted and had another {changed[0]}; "
                "give the settings of that run, choose another folder, or remove its last.ckpt"
            )
            raise ValueError(msg)


class TrainingCLI(LightningCLI):
    """Lightning's command line with the settings of a run, and what a run needs to be resumed."""

    def add_arguments_to_parser(self, parser):
        """Add what is not Lightning's."""
        parser.add_argument("--output", type=str, help="the .safetensors file to write")
        parser.add_argument("--overwrite", type=bool, default=False, help="whether to replace it")
        text = "whether to compile; needs a C++ compiler"
        parser.add_argument("--compile", type=bool, default=False, help=text)
        parser.add_lightning_class_args(PowerEMA, "ema")
        parser.link_arguments("seed_everything", "data.init_args.seed")

    def parse_arguments(self, parser, args):
        """Parse ``args``, whatever the arguments of the process are, and say in a line what is wrong."""
        parser.exit_on_error = False
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            parser.exit(2, f"{parser.prog}: error: {_explain(str(error))}\n")

    def before_instantiate_classes(self):
        """Find out early what would fail late."""
        output = Path(self.config.output or "")
        if output.suffix != ".safetensors" or not output.parent.is_dir():
            msg = f"output {str(output)!r} must be a .safetensors file in a folder that exists"
            raise ValueError(msg)
        if output.exists() and not self.config.overwrite:
            msg = f"output {output} exists; use --overwrite true to replace it"
            raise FileExistsError(msg)
        if self.config.trainer.max_steps < 1:
            msg = f"trainer.max_steps must be the steps of the whole run, not {self.config.trainer.max_steps}"
            raise ValueError(msg)

    def instantiate_trainer(self, **options):
        """Add logger and checkpoints in the folder of the run."""
        config = self.config_init
        folder = Path(config.trainer.default_root_dir)
        if config.trainer.logger is None:
            options["logger"] = CSVLogger(folder, name=None)
        fixed = ("seed_everything", "model.", "data.", "ema.", "trainer.max_steps")
        free = ("data.init_args.folder", "data.init_args.workers")  # which do not change the examples
        settings = {k: str(v) for k, v in self.config.items() if k.startswith(fixed) and k not in free}
        self.trainer_defaults["callbacks"] = [
            Repeatable(config.seed_everything, settings),
            Timer(config.trainer.max_time, "epoch", verbose=False),
            ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False),
        ]
        return super().instantiate_trainer(**options)


def train(config, options=()):
    """
    Train a model.

    What the settings are called is told by ``astro-ddpm train CONFIG.yaml --print_config``. Checkpoints, logs
    and the settings go into the folder ``trainer.default_root_dir``. When it holds the checkpoint of a run
    that was interrupted, that run is continued, and ends with the weights that it would have had. Torch's
    global generator is seeded.

    Parameters
    ----------
    config : str or path-like
        A YAML file of settings, or the name of one that comes with the package: ``"raunet"`` or ``"ddpm"``
        for the released models, ``"smoke_raunet"`` or ``"smoke_ddpm"`` for a trial.

    options : sequence of str, optional
        Settings that replace those of the file, as on the command line:
        ``["--data.train", "train.npz", "--trainer.max_steps", "100"]``.

    Returns
    -------
    output : `~pathlib.Path` or None
        The model, a ``.safetensors`` file. None in all but the first of several processes.

    Raises
    ------
    FileExistsError
        If the model exists and ``overwrite`` is not set.

    SystemExit
        If a setting is missing, unknown or of the wrong type.

    ValueError
        If there is no such ``config``, or settings cannot be used: among them those that differ from the
        settings of the run to be continued, and bfloat16 where the hardware lacks it.
    """
    defaults = {"default_root_dir": "runs", "devices": 1, "max_epochs": -1}
    defaults |= {"reload_dataloaders_every_n_epochs": 1, "use_distributed_sampler": False}
    cli = TrainingCLI(
        TrainingModule,
        PairDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_kwargs={"overwrite": True},
        trainer_defaults=defaults,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        parser_kwargs={"prog": "astro-ddpm train CONFIG.yaml"},
        args=["--config", str(find_config(config)), *map(str, options)],
        run=False,
    )
    module, trainer = cli.model, cli.trainer
    check_precision(trainer.precision, trainer.strategy.root_device)
    if cli.config.compile:
        module.compile_networks()
    last = Path(trainer.default_root_dir) / "last.ckpt"
    resume = last if last.exists() and not trainer.fast_dev_run else None
    with warnings.catch_warnings():
        for message in VAIN_WARNINGS:
            warnings.filterwarnings("ignore", message)
        try:
            trainer.fit(module, cli.datamodule, ckpt_path=resume, weights_only=True)
        except SystemExit:  # how Lightning ends at Ctrl-C and SIGTERM
            raise KeyboardInterrupt from None
    if not trainer.is_global_zero:
        return None
    output = Path(cli.config.output)
    zoo.save(pack(module.cpu(), cli.datamodule, trainer), output, overwrite=cli.config.overwrite)
    if trainer.global_step >= trainer.max_steps and not trainer.fast_dev_run:
        last.unlink(missing_ok=True)  # a finished run is not to be continued by the next one
    return output


def _explain(message):
    """Return in one line what a message of jsonargparse says over many."""
    missing = re.search(r'are required: ([\w, ]+)|"(\w+)" is required', message)
    if missing:
        names = (missing[1] or missing[2]).split(", ")
        files = {"train": "--data.train TRAIN.npz", "validation": "--data.validation VAL.npz"}
        options = [files.get(name, f"--model.{name}") for name in names]
        hint = ", which 'astro-ddpm prepare' writes" if files.keys() & {*names} else ""
        return f"give {' and '.join(options)}{hint}"
    vain = ("Does not validate", "Subtypes", "Errors:", "- Expected a <class 'NoneType'>", "Given value")
    lines = [line.strip() for line in message.splitlines()]
    return " ".join(line for line in lines if not line.startswith(vain))


def find_config(name):
    """Return the path of a file of settings; the name of one that comes with the package will do."""
    names = sorted(path.stem for path in HOME.glob("*.yaml"))
    path = HOME / f"{name}.yaml" if str(name) in names else Path(name)
    require(path.is_file(), f"unknown config {str(name)!r}: neither a file nor one of {', '.join(names)}")
    return path


def check_precision(precision, device):
    """Refuse bfloat16 where it would be emulated, which is slower than float32 and less precise."""
    if precision.startswith("bf16") and not knows_bfloat16(device):
        lack = f"which this {device.type} lacks; use 32-true"
        msg = f"trainer.precision {precision} needs hardware with bfloat16, {lack}"
        raise ValueError(msg)


def pack(module, data, trainer):
    """Return the model that was trained, with the ranges of the data and the settings other than files."""
    files = ("train", "validation", "deep", "deep_share", "folder", "workers", "start", "teacher")
    settings = {k: v for k, v in {**data.hparams, **module.hparams}.items() if k not in files}
    ranges = [measure_ranges(arrays) for arrays in data.arrays if "sigma" in arrays]
    ranges += [SceneDataset.ranges] if settings["scene_share"] else []
    training = {
        "version": __version__,
        "steps": trainer.global_step,
        "train": {Path(name).name: share for name, share in data.shares.items()},
        "pairs": sum(len(arrays["depth"]) for arrays in data.arrays if "depth" in arrays),
        "precision": trainer.precision,
        **{k: v for k, v in settings.items() if not k.startswith("_")},
    }
    return zoo.Model(**module.parts(), ranges=merge_ranges(ranges), training=training)
