"""One HTML document from the artifacts of a run."""
