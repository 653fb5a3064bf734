"""Several models that score as one: trained together, or runs that are there already."""
