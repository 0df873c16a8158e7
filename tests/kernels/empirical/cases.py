"""The table of awkward modules: what other engines get wrong or refuse. A new case is one row in one of its parts."""

from .awkward.architectures import ARCHITECTURES
from .awkward.attention import ATTENTION
from .awkward.autograd import AUTOGRAD
from .awkward.case import Awkward, floats
from .awkward.inputs import INPUTS_AND_OUTPUTS
from .awkward.layers import LAYERS
from .awkward.parameters import PARAMETERS
from .awkward.recurrent import RECURRENT

AWKWARD: list[Awkward] = [
    *LAYERS,
    *ATTENTION,
    *PARAMETERS,
    *RECURRENT,
    *AUTOGRAD,
    *INPUTS_AND_OUTPUTS,
    *ARCHITECTURES,
]

vectors = floats(3)
