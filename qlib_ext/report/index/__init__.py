"""All runs of a store on one page: to sort, filter and group by what differs, with the newest list and the health of the data."""
