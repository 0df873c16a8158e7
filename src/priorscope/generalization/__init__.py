"""Hypotheses: which generalisation a trained network takes, and with what probability."""
