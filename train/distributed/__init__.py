"""Process groups and collectives, and what torch and fbgemm need patched; every private call of theirs is in here."""
