"""Twenty-three portfolios of the same scores, after cost, against what needs no skill."""
