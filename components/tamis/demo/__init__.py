"""The demo: a small pool, two small models and the settings of a run on them, all part of the package."""

FOLDER = "tamis-demo"  # where the demo goes if nothing is said, and where its settings look for data and models
