"""Files of a log as typed rows."""
