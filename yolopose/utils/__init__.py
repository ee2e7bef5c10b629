"""Ground of everything: errors, files, locks, provenance, processes. Knows nothing of poses and of the other layers."""
