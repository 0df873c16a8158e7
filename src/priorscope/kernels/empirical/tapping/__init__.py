"""The live run of a module, tapped: which uses of parameters it shows, and their activations and signals."""

from .account import Account, account
from .passes import Pass, Passes, looped, vectorized
from .tap import OtherCallsError, Use
from .uses import Lookup, Rule

__all__ = [
    "Account",
    "Lookup",
    "OtherCallsError",
    "Pass",
    "Passes",
    "Rule",
    "Use",
    "account",
    "looped",
    "vectorized",
]
