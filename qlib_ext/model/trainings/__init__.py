"""Trainings side by side, each a run of its own in a process of its own: folds, members of ensembles, trials of a search."""
