"""The audit of a store: what is wrong with it, where, why that matters, and what can be mended safely."""
