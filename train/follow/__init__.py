"""`shardrec follow`: test, then train, window by window over a log, and what updates were worth."""
