"""From a stock's embedding to one task's prediction."""
