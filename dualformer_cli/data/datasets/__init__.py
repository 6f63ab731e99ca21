"""The published datasets: addresses and facts, annotation files, class names, official lists."""
