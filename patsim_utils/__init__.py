"""patsim: how alike are two patent phrases in one CPC class? The tested helpers behind the notebooks."""
