"""Workflow files read and checked as a whole, before any long work and before anything in them is imported."""
