"""Qlib data handlers."""
