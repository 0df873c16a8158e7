"""The table of awkward modules: what other engines get wrong or refuse. A new case is one row in one of its parts."""

from .awkward.architectures import ARCHITECTURES
from .awkward.attention import ATTENTION
from .awkward.autograd import AUTOGRAD
from .awkward.case import Awkward, floats
from .awkward.inputs import INPUTS_AND_OUTPUTS
from .awkward.layers import LAYERS
from .awkward.parameters import PARAMETERS
from .awkward.recurrent import RECURRENT

EVERY: list[Awkward] = [
    *LAYERS,
    *ATTENTION,
    *PARAMETERS,
    *RECURRENT,
    *AUTOGRAD,
    *INPUTS_AND_OUTPUTS,
    *ARCHITECTURES,
]

_SOME = """
RNN, plain | GRU, plain | LSTM, two layers, both directions, without bias | PReLU per channel | BatchNorm2d
GroupNorm on images | RMSNorm | tied decoder by transpose | relu in place | frozen first weight | number | unused
inputs as a dictionary | inputs as a tuple | not contiguous | squeezed | Conv2d, grouped | Conv2d, dilated
Conv2d, strided | Conv2d, circular and same | ConvTranspose2d, strided | Conv1d, plain | attention function
transformer encoder layer | own function without a vmap rule | checkpoint | tensor hook that changes the gradient
module used twice | one logit
"""


def named(name: str) -> Awkward:
    """The case of this name."""
    return next(case for case in EVERY if case.name == name)


AWKWARD: list[Awkward] = [named(name.strip()) for name in _SOME.replace("\n", "|").split("|") if name.strip()]
"""A few of each kind, for what is tried on many modules but not on all."""

vectors = floats(3)
