"""Files from the network: asked for, resumed, verified, unpacked; weights and datasets, and what is there of them.

`tasks` and `engine` open it for weights and downloads.
"""
