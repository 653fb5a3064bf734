"""Several portfolios combined day by day, without a model of how they will do."""
