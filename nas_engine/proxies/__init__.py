"""Zero-cost proxies: what an untrained network and a few images say of how well it will do once trained."""
