"""Runs compared: grouped by what differs, averaged over seeds, tested against a baseline, on one page."""
