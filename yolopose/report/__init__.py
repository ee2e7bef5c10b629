"""The reading wing: stored results to comparison, claims, tables, figures, page. Imports no torch and computes no result."""
