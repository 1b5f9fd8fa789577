"""The checks of `tamis doctor`, one module per kind."""
