"""What runs in a container: one folder per stage, and the libraries under them."""
