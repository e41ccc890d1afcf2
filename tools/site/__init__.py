"""The collection as static pages: `python -m tools.site` builds `site/` from the notebooks as they are committed.

Nothing is executed but what draws: explorers and replays come from the package and `results/`, prose and outputs from
the notebooks.  The pages ask nobody for anything and work from a folder on a disk as they do from any static host.
"""
