"""``shardrec report``: one page over runs that says what quality costs. Needs no torch."""
