"""A prepared store, as it is read."""
