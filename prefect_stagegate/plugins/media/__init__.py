"""Images, audio and tensors."""
