"""What a model sees of a stock: expressions on whole planes, and windows of the fields that a set of features names."""
