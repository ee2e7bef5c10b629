"""The reading wing: stored results to comparison, claims, tables, figures, page. No torch, and nothing is computed."""
