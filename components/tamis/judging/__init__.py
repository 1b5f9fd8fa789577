"""Stage 9, judging: two models' answers compared by a language model, in both orders."""
