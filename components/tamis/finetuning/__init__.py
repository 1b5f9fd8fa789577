"""The finetuning stage: trains a base model on a subset, with LoRA or in full."""
