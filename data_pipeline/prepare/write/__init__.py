"""Histories, features and the fingerprint, written."""
