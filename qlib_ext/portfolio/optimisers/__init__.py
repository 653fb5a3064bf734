"""From expected returns and risk to weights."""
