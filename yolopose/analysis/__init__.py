"""Everything measured of trained runs, models and data, written as files under results. Knows no verdicts."""
