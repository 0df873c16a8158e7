"""What can go wrong, as one tree. Every error names the place, the cause and the remedy.

========================  ==========================================================================
DataError                 inputs, labels or files: shapes, NaN, empty, a missing column
ModelError                a module that does not load, does not run, or is in the wrong mode
NotExactError             a module whose kernel cannot be computed exactly (it mixes the batch, is random)
NoRuleError               a layer or function without an infinite-width rule
RatesError                learning-rate multipliers that are missing, unknown, or do not belong together
SingularKernelError       a density or an inverse that does not exist
IndistinguishableError    test points that the kernel cannot tell from training points
MemoryBudgetError         work that would not fit into the memory allowed
NotCoveredError           a training that is possible, but that a prediction does not cover
PriorscopeWarning         a result that is right, and probably not what you meant
========================  ==========================================================================
"""


class PriorscopeError(ValueError):
    """Base of all errors: `place: cause. Remedy.`"""

    def __init__(self, place: str, cause: str, remedy: str):
        super().__init__(place, cause, remedy)
        self.place, self.cause, self.remedy = place, cause, remedy

    def __str__(self) -> str:
        return f"{self.place}: {self.cause}. {self.remedy}."


class DataError(PriorscopeError):
    """Inputs, labels or files that cannot be used."""


class ModelError(PriorscopeError):
    """A module that does not load, does not run, or is in the wrong mode."""


class NotExactError(ModelError):
    """A module whose kernel cannot be computed exactly."""


class NoRuleError(PriorscopeError):
    """A layer or function without an infinite-width rule."""


class RatesError(PriorscopeError):
    """Learning-rate multipliers that are missing, unknown, or do not belong together."""


class SingularKernelError(PriorscopeError):
    """A density or an inverse that does not exist."""


class IndistinguishableError(DataError):
    """Test points that the kernel cannot tell from training points."""


class MemoryBudgetError(PriorscopeError):
    """Work that would not fit into the memory allowed."""


class NotCoveredError(PriorscopeError):
    """A training that is possible, but that a prediction does not cover."""


class PriorscopeWarning(UserWarning):
    """A result that is right, and probably not what you meant."""


def brief(error: BaseException) -> str:
    """Another library's error in one short line, for a reason or a cause."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:90]}{'...' if len(text) > 90 else ''}"
