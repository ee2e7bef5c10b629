"""What make bench measures on this machine. Nothing in yolopose imports it."""
