"""Making what is not there: composed images, traffic signs, trained networks and whole rounds of models."""
