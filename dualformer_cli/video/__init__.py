"""A file, a folder of frames or a camera becomes frames. Opened by data, engine, tasks and outputs."""
