"""Annotation formats, one a file; the table in `annotations.py` names them. A new one is a file and a line there.

They say what an annotation says; `join_files.py` finds the file that it means.
"""
