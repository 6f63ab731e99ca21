"""Labelled videos become manifests: plan, check, look-alikes, conversion, estimate, journal, lists, summary.

Tasks open `preparation`, which runs the steps; worker processes run what `check` and `convert` hold.
"""
