"""A file, a folder of frames or a camera becomes frames, and frames become a file. Opens config and system."""
