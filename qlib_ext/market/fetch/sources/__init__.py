"""Where bars and what stands beside them come from: one class a source."""
