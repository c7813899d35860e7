"""What is kept in the database."""

from django.db import models


class Product(models.Model):
    """Something to sell."""

    name = models.TextField()
    price_cents = models.PositiveIntegerField(null=True)

    def __str__(self) -> str:
        return self.name
