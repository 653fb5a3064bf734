"""Labels as planes of a market: what the processors make of raw returns."""
