"""Qlib and MLflow at work in a folder, as the records' tests have them."""

from tests.records.conftest import place, workplace

__all__ = ["place", "workplace"]
