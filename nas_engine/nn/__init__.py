"""Networks: stand-alone ones that need torch alone, and supernets."""
