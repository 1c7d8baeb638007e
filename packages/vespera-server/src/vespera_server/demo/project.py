"""The small project that every demo agent gets its own copy of. It has one bug and one test."""

from __future__ import annotations

from pathlib import Path

BUG = "return sum(price for _, price, _ in items)"
FIX = "return sum(price * count for _, price, count in items)"

_FILES = {
    "README.md": "# Corner shop\n\nWhat is in stock and its worth.\nTests: python3 -m unittest\n",
    "inventory.py": f'''"""What the shop has in stock."""

import csv


def load(path):
    with open(path, newline="") as file:
        rows = csv.DictReader(file)
        return [(row["item"], int(row["price"]), int(row["count"])) for row in rows]


def value(items):
    {BUG}
''',
    "test_inventory.py": """import unittest

import inventory


class Value(unittest.TestCase):
    def test_every_piece_counts(self):
        self.assertEqual(inventory.value([("tea", 3, 2), ("jam", 4, 1)]), 10)

    def test_an_empty_shop_is_worth_nothing(self):
        self.assertEqual(inventory.value([]), 0)


if __name__ == "__main__":
    unittest.main()
""",
    "stock.csv": "item,price,count\ntea,3,12\njam,4,7\nbread,2,30\nsoap,5,9\n",
}


def write_project(directory: Path) -> None:
    """Writes a fresh copy into a new directory."""
    directory.mkdir(parents=True)
    for name, text in _FILES.items():
        (directory / name).write_text(text, encoding="utf-8")
