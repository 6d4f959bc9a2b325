"""Encoders: jagged tokens to queries."""
