"""Which videos, which labels, which clips: datasets, lists, and the frames that a network sees of them.

`engine`, `tasks` and what stands above them open it; it opens `video`, `config`, `documents` and `system`.
"""
