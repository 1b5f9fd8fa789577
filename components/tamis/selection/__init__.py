"""Stage 6, selection: which samples to train on, by one of several strategies behind one interface."""
