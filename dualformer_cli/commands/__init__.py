"""The command line: each command reads its options into a request, makes one call of tasks and prints the result."""
