"""Ground of everything: errors, files, locks, provenance, processes. Knows nothing of poses and imports nothing of ours."""
