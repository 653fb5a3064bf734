"""Qlib and MLflow at work in a folder, as the records' tests have them, and a server that can be switched off."""

from tests.records.conftest import place, workplace
from tests.tracking.conftest import server, switched

__all__ = ["place", "server", "switched", "workplace"]
