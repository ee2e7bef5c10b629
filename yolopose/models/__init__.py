"""Section 3 of the paper as pure functions and modules of tensors: no files but weights, no data sets, no training loop."""
