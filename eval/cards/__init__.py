"""Class-distance cards of a model: their record, text, pictures and checks."""
