"""``shardrec doctor``: can this machine train? One table, and for each failure the command that mends it."""
