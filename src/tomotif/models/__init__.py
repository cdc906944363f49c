"""Network architectures: tensors in, tensors out. No files, no losses."""
