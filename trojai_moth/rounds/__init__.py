"""What lies on disk: rounds and their models, packs, configurations, preprocessing, and images for a model."""
