"""A project of one's own: a folder with notebooks, settings, tests and the way to a package."""
