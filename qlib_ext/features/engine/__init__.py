"""Qlib's expression language on whole planes: text to graph, graph to numbers, each node computed once."""
