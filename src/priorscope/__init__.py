"""priorscope shows what a neural network wants to learn, before it is trained.

A module and data make a kernel (`EmpiricalNTK`, `infinite_width`; what real widths add to it: `finite_width`); a kernel
on data makes beliefs (`eigenmodes`, `GaussianProcess`), functions along training (`trajectory`, `trained_ensemble`),
verdicts (`compare`, `audit`, `crossover`, `most_diagnostic`), which `trust` says how far to believe, and expected test
errors (`learnability`, `learning_curve`, `gcv`); `train` and `train_many` show what real networks do; `report` puts it
all on one page.
"""

from . import data, kernels, plot
from .beliefs.gaussian import Gaussian, Probability
from .beliefs.hermite import HermiteModes, hermite_modes
from .beliefs.modes import Spectrum, eigenmodes, sinusoid_r2
from .beliefs.operator import OperatorSpectrum, operator_spectrum
from .beliefs.process import GaussianProcess
from .beliefs.rare import rare_probability
from .beliefs.removal import leave_out
from .beliefs.samples import Samples
from .beliefs.similarity import cosine, influence, most_similar
from .beliefs.spheres import cube_spectrum, sphere_spectrum
from .beliefs.symmetry import commutator
from .errors import PriorscopeError, PriorscopeWarning
from .generalization.audit import Audit, audit
from .generalization.compare import Verdict, compare, probability_of
from .generalization.crossover import Crossover, crossover
from .generalization.datamodels import datamodelling_score
from .generalization.diagnostic import Diagnostic, most_diagnostic
from .generalization.learnability import Learnability, learnability, learning_curve
from .generalization.risk import Risk, gcv
from .generalization.trust import Trust, trust
from .kernels import FunctionKernel, Kernel, KernelPair, PrecomputedKernel
from .kernels.empirical import EmpiricalNTK
from .kernels.infinite import FiniteWidthKernels, dual, finite_width, infinite_width, kernel_map, rule
from .network.initialization import Initialization
from .network.linearize import linearize
from .report import report
from .training.drift import drift
from .training.ensemble import TrainedEnsemble, trained_ensemble
from .training.follow import Course, follow
from .training.function_trajectory import FunctionTrajectory
from .training.relinearise import RelinearisedTrajectory
from .training.run import Run, train
from .training.runs import Runs, train_many
from .training.sampled import SampledEnsemble
from .training.similar import similar
from .training.subsets import retrain
from .training.training import Training
from .training.trajectory import Trajectory, trajectory
from .version import __version__

__all__ = [
    "Audit",
    "Course",
    "Crossover",
    "Diagnostic",
    "EmpiricalNTK",
    "FiniteWidthKernels",
    "FunctionKernel",
    "FunctionTrajectory",
    "Gaussian",
    "GaussianProcess",
    "HermiteModes",
    "Initialization",
    "Kernel",
    "KernelPair",
    "Learnability",
    "OperatorSpectrum",
    "PrecomputedKernel",
    "PriorscopeError",
    "PriorscopeWarning",
    "Probability",
    "RelinearisedTrajectory",
    "Risk",
    "Run",
    "Runs",
    "SampledEnsemble",
    "Samples",
    "Spectrum",
    "TrainedEnsemble",
    "Training",
    "Trajectory",
    "Trust",
    "Verdict",
    "__version__",
    "audit",
    "commutator",
    "compare",
    "cosine",
    "crossover",
    "cube_spectrum",
    "data",
    "datamodelling_score",
    "drift",
    "dual",
    "eigenmodes",
    "finite_width",
    "follow",
    "gcv",
    "hermite_modes",
    "infinite_width",
    "influence",
    "kernel_map",
    "kernels",
    "learnability",
    "learning_curve",
    "leave_out",
    "linearize",
    "most_diagnostic",
    "most_similar",
    "operator_spectrum",
    "plot",
    "probability_of",
    "rare_probability",
    "report",
    "retrain",
    "rule",
    "similar",
    "sinusoid_r2",
    "sphere_spectrum",
    "train",
    "train_many",
    "trained_ensemble",
    "trajectory",
    "trust",
]
