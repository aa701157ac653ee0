"""What others have published of rounds by model id: errata of labels, and models known for false positives."""
