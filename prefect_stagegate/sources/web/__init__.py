"""Web servers, WebDAV and the Hugging Face hub."""
