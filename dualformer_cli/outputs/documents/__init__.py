"""The JSON documents of the commands, one file per command: frozen dataclasses that alone know the field names.

Tasks fill them in; text, pages, files and `--json` are made from them.
"""
