"""Learning controllers behind one protocol, and the adapter for Stable-Baselines3."""
