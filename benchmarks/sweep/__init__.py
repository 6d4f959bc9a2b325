"""``shardrec sweep``: many runs side by side on one machine, and one index of what they gave and cost."""
