"""Named data sets and the user's own files -> tensors; this floor knows no model."""
