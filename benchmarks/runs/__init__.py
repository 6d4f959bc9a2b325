"""Runs as their folders record them: read, named and compared. Without torch."""
