"""Which videos with which labels: manifests, older formats, tables, folders, class names and their matching, splits.

Every room that reads or writes a list opens it; it loads neither PyAV nor torch.
"""
