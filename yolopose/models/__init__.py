"""The network of the paper's section 3, its losses and its decoding, as modules and pure functions of tensors."""
