"""One process among many: ranks, exchanges between them, devices, launching."""
