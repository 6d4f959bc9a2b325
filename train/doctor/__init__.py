"""What `shardrec doctor` starts where torch is needed."""
