# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Settings of the package, in the way of `astropy.config`.
"""

from astropy.config import ConfigItem, ConfigNamespace

__all__ = ["Conf", "conf"]


class Conf(ConfigNamespace):
    """
    Settings of the package, read from ``astro_ddpm.cfg`` in the folder of the configuration of astropy.

    ``default_model`` is the model of `~astro_ddpm.enhance` and of the command line where none is named, and
    ``cached_models`` how many loaded models are kept in memory. Nothing is ever downloaded, so there is no
    cache on disk.

    Examples
    --------
    >>> from astro_ddpm import conf
    >>> with conf.set_temp("default_model", "raunet"):
    ...     conf.default_model
    'raunet'
    """

    default_model = ConfigItem(
        "ddpm",
        "Name or .safetensors file of the model that is used where none is named.",
        cfgtype="string",
        module="astro_ddpm",
    )
    cached_models = ConfigItem(
        4,
        "How many loaded models are kept in memory.",
        cfgtype="integer(min=0)",
        module="astro_ddpm",
    )


conf = Conf()
