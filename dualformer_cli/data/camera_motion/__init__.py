"""The built-in dataset: rendered clips of camera motion, as files and while training."""
