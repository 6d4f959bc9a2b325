"""A raw log into a store: `prepare.prepare` is the entry."""
