"""A vendor's files as bars: columns, codes, days, units, adjustment; and bars as a store."""
