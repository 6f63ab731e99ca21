"""Frames of a video become clips: which frames and cuts, augmentation, batches of a training."""
