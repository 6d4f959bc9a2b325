"""The command line: starts every verb, imports no other package of ours but configs."""
