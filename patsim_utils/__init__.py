"""Similarity of two patent phrases within a CPC class: the tested helpers behind the notebooks."""

import warnings

# tqdm misses ipywidgets in notebooks; the bars here are the Trainer's own, and the pages need no widget.
warnings.filterwarnings("ignore", "IProgress not found")
