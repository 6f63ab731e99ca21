"""Annotation formats, one a file; the table in `annotations.py` names them. A new one is a file and a line there."""
