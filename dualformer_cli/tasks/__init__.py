"""Use cases, one a file, importable without Typer: a request goes in, a typed document comes out."""
