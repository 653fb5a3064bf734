"""Each feature alone: what it says of returns, how steadily, and what it is made of."""
