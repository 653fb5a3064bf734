"""When a portfolio is rebalanced."""
