"""From a daily panel to one embedding a stock."""
