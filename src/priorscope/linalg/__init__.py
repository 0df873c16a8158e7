"""Matrices only; this floor knows no kernel."""
