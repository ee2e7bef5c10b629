"""The study as data: YAML rows, the configuration of one run, constants of the paper; no torch and no results."""
