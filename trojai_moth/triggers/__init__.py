"""What is done to a network with images: searching triggers, patches, known filters and class distances."""
