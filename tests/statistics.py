"""The statistical criterion, where tests look for it."""

from priorscope.experiments.statistics import (
    QUANTILE,
    BootstrappedMean,
    TwoWidths,
    covariance_quantile,
    covariance_statistic,
)

__all__ = ["QUANTILE", "BootstrappedMean", "TwoWidths", "covariance_quantile", "covariance_statistic"]
