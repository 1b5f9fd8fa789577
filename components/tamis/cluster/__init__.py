"""What pods do beside the stages: wait for an input, try the object storage, fill the model cache."""
