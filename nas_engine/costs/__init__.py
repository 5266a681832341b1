"""What an architecture costs: exact counts, tables and measurements."""
