"""Days of `recommend`, one by one on a store that grows, beside the backtest of the same days."""
