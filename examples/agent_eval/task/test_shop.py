import unittest

from shop import cart
from shop.receipt import receipt


class ShopTest(unittest.TestCase):
    def test_total_price(self):
        assert cart.total_price([1000, 250], discount=10) == 1125

    def test_receipt(self):
        assert receipt([1000, 250]) == "total: 12.50"
