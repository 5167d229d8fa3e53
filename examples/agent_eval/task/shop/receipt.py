"""What a customer gets printed."""

from shop.cart import total

HEADER = "total"  # what it says in front of the sum


def receipt(prices, discount=0):
    euros = total(prices, discount) / 100
    return f"{HEADER}: {euros:.2f}"
