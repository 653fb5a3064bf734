"""A search for the parameters of a workflow, by its validation days alone."""
