"""Rows into ranges of users that fit in memory, filtered, sorted and numbered."""
