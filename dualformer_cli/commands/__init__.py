"""The hall: each command reads its options, makes one call and prints one result."""
