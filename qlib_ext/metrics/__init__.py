"""Metrics as pure functions of arrays: no configuration, no files, no Qlib."""
