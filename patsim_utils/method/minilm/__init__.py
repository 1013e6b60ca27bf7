"""MiniLM to score with, without transformers, whose import takes three seconds."""
