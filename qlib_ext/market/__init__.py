"""Bars on disk: read and write Qlib's store, and make the sample market."""
