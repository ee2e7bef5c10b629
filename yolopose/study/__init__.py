"""The study as data: YAML rows, the configuration of one run, constants of the paper. Neither torch nor results live here."""
