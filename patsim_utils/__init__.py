"""Similarity of two patent phrases within a CPC class: the tested helpers behind the notebooks."""
