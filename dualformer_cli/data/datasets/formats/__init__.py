"""Annotation formats, one a file, whose name is the format's. A new one is such a file.

They say what an annotation says; `join_files.py` finds the file that it means.
"""
