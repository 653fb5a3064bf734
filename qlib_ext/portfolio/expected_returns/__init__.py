"""What a portfolio expects of each stock."""
