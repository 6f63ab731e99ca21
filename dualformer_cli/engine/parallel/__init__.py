"""One process among others: placement, decoders, joining, reductions, BatchNorm, device and precision, launch."""
