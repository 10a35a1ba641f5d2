# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Trained models: which there are, how to load one, how to save one.

Weights are safetensors files. Nothing in them is ever executed, and their SHA-256 is verified.
"""

from typing import Any

from .registry import list_models, load, save

__all__ = ["Model", "list_models", "load", "save"]


def __getattr__(name: str) -> Any:
    if name == "Model":
        from .model import Model

        return Model
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
