"""Which videos with which labels: manifests, older formats, folders of class folders, class names."""
