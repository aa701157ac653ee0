"""Lower and upper bounds of class distances, and what they are made of."""
