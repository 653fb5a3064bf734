"""Qlib record templates: what a run leaves behind."""
