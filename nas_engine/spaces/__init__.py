"""Search spaces and the rules between their decisions."""
