"""The authors' checkpoints: fetched, read without running their code, imported as runs. Nothing else may know them."""
