"""The run format: what the manifest and each record hold, and how they are encoded."""
