"""Runs on MLflow: clients, the outbox, artifacts, tags and the state of git."""
