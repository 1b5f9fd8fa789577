"""The demo: a small pool, two small models and the settings of a run on them, all part of the package."""
