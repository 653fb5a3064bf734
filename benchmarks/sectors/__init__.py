"""The largest stocks of each sector, weighted by every method at the end of some years and held over the next one."""
