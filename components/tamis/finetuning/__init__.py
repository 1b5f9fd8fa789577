"""Stage 7, finetuning: a base model trained on a subset, by LoRA or in full."""
