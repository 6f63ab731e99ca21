"""The JSON documents of the commands, one file per command: frozen dataclasses that alone know the field names.

Every room above may open it: data and engine return documents, tasks complete them, and text, pages, files and
`--json` are made from them.
"""
