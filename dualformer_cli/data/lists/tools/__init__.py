"""What files of annotation tools say of videos: a reader for each tool. Opened by `annotation_tools`."""
