"""Trainings of several kinds and seeds, run one after the other, kept small and held against each other."""
