"""Multi-task stock recommendation on Qlib: from bars on disk to a report that an analyst can judge."""

__version__ = "0.2.0"
