"""Training of runs: trainer, optimizer, checkpoints, several processes, tuning of gains. Judges nothing."""
