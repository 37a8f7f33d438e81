"""Label files as text, JSON, XML and rows, each with its place for messages."""
