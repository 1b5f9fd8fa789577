"""Stage 6, selection: choose the samples to train on, with one of several strategies behind one interface."""
