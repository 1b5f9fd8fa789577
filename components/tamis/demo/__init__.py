"""The demo: a small pool, two small models and the settings of a run on them, all in the package."""

FOLDER = "tamis-demo"  # default folder of the demo, also in its settings
