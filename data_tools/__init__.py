"""Raw preference files in, a checked Hugging Face dataset out; knows nothing of models."""
