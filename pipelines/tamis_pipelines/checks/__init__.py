"""What `tamis doctor` looks at, by kind."""
