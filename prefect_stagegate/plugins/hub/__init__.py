"""Hugging Face's hub."""
