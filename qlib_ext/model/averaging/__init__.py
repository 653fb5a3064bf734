"""Averages of the weights that a training passes through: one class a file."""
