"""The report: what your network will learn from your data, on one page."""

from .report import Report, report

__all__ = ["Report", "report"]
