"""Documents and pictures become text, HTML, JSON, CSV, subtitles, images and videos. Opened by tasks and commands."""
