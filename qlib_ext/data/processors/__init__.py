"""Qlib processors."""
