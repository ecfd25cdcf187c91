"""Readers of the files in which others publish VGG weights."""
