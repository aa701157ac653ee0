"""What others have published of rounds: errata of labels, models known for false positives, and their own figures."""
