"""Frames become clips: views for scoring, random clips for training, what is changed about them, and batches.

Each function takes the sections of the configuration that it needs. `loader` reads from a `ClipSource`: the videos of a
list (`training_clips`), or the rendered clips of `camera_motion`. `engine`, `tasks` and `data/tokens` open this room.
"""
