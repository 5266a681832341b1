"""What scores architectures: weight sharing and training from scratch."""
