"""Random changes of training windows that leave their labels as they are."""
