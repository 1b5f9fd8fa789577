"""Near-copies: samples whose texts are almost the same, found and dropped before anything is paid for."""
