"""Questions about speed, answered with numbers."""
