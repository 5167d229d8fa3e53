"""What a customer wants to buy."""


def total(prices, discount=0):
    """Return the sum of the prices, in cents, less the discount in percent."""
    subtotal = sum(prices)
    return subtotal - subtotal * discount // 100
