"""The model over batches, on one process or many: training, scoring, explaining. Opened by `tasks`."""
