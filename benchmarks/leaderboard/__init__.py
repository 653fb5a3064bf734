"""Models of others and of this package on the same data, labels, exchange rules and benchmarks."""
