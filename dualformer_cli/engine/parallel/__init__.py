"""One process among others: placement, joining, reductions, BatchNorm over ranks, device and precision, launch."""
