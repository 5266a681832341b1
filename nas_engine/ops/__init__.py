"""Native operations: one file for each, holding the readable reference, the checks and the call."""
