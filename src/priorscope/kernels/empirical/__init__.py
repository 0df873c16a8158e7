"""A module with its weights -> its neural tangent kernel, exact or an error."""

from .ntk import EmpiricalNTK
from .plan import Group, Plan, Share, Workload, make_plan

__all__ = ["EmpiricalNTK", "Group", "Plan", "Share", "Workload", "make_plan"]
