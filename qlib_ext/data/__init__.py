"""The market in memory, and daily panels of it for models."""
