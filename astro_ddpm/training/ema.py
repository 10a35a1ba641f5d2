# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Exponential moving average of weights whose memory grows with training.
"""

from pytorch_lightning.callbacks import WeightAveraging

__all__ = ["PowerEMA"]


class PowerEMA(WeightAveraging):
    r"""
    Average the weights with a power function of training time.

    .. math:: \hat\theta_t = \beta_t \hat\theta_{t-1} + (1 - \beta_t) \theta_t, \qquad
              \beta_t = (1 - 1 / t)^{\gamma + 1}

    (Karras et al. 2024, *Analyzing and Improving the Training Dynamics of Diffusion Models*,
    equation 2.) Unlike a fixed decay it forgets the random start and fits runs of any length.

    Parameters
    ----------
    gamma : float, optional
        The exponent; 6.94 gives a profile whose width is 10 % of the run.
    """

    def __init__(self, gamma: float = 6.94):
        def average(averaged, current, n_averaged):
            beta = (1 - 1 / (n_averaged + 1)) ** (gamma + 1)
            return averaged + (1 - beta) * (current - averaged)

        super().__init__(avg_fn=average)

    def on_fit_end(self, trainer, pl_module):
        """Hand over the average, also where a checkpoint was loaded that had no step left to do."""
        self.on_train_end(trainer, pl_module)
