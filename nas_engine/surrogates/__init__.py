"""Models that predict rewards of architectures from those evaluated, for controllers and baselines alike."""
