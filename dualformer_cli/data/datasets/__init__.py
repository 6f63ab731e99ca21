"""The published datasets: facts and addresses, annotations and their formats, class names, the join with files, lists.

`fetch`, `prepare` and whoever asks for the classes that a mirror exchanges open it.
"""
