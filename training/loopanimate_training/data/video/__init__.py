"""Video files: what is really in them, and chosen frames of them."""
