"""Stored token labels: the tiles of a video that a teacher labels, the folder of labels, look-up for a training clip.

`tasks` writes them, `engine/training` reads them.
"""
