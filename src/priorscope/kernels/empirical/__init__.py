"""A module with its weights -> its neural tangent kernel, exact or an error."""

from .ntk import EmpiricalNTK
from .plan import Group, Plan, make_plan
from .workload import Share, Workload

__all__ = ["EmpiricalNTK", "Group", "Plan", "Share", "Workload", "make_plan"]
