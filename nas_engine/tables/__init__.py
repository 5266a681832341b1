"""Tables of architectures that others have evaluated: how one is described, and how it is read."""
