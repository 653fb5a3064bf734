"""What a portfolio takes for the risk of its stocks."""
