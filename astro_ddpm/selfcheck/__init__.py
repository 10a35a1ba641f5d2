# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The check without truth: Stein's estimate of the error of a result, and what follows from it.
"""

from .calibrate import Answer, Correction, Probe, fit_correction, local_mean
from .check import Check, Verifier, check_answer, choose_parts, pool_tables, sentence
from .expansion import Expansion, fit_expansion, starlet_planes
from .judge import NoiseJudgement, judge_noise, noise_autocorrelation
from .stein import Moments, colour, divergence, measure_noise_power, power_spectrum, random_signs

__all__ = [
    "Answer",
    "Check",
    "Correction",
    "Expansion",
    "Moments",
    "NoiseJudgement",
    "Probe",
    "Verifier",
    "check_answer",
    "choose_parts",
    "colour",
    "divergence",
    "fit_correction",
    "fit_expansion",
    "judge_noise",
    "local_mean",
    "measure_noise_power",
    "noise_autocorrelation",
    "pool_tables",
    "power_spectrum",
    "random_signs",
    "sentence",
    "starlet_planes",
]
