"""Every setting: a preset with overrides becomes one frozen RunConfig, whose sections the rooms above take.

`schema.py` has the keys, `load.py` and `typed_yaml.py` read them, `metric_table.py` has the metrics. All rooms above
open it; it opens nothing but `system`.
"""
