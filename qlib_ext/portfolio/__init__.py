"""From scores to target weights: what is expected, what is risked, what is allowed, and the best weights within."""
