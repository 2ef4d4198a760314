"""Counts that reach the metrics in lots, so that two scrapes around a request do not disclose its row.

At low traffic the difference of two scrapes is one person: the bin of each answer and the exact risk. So the
increments of at least `size` rows are held back and added together, and sums are rounded. docs/security.md
describes what a lot does not hide: an answer that all of its rows share, and the last row of a lot from a
caller who sent all its other rows.
"""

from prometheus_client import Counter

# Decimals of sums of risks; the remainder of the rounding is added to a later lot.
SUM_DIGITS = 2


class Lot:
    """Increments of counters that are added together. For one thread at a time."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._counts: dict[Counter, float] = {}
        self._sums: dict[Counter, float] = {}
        self.rows = 0

    def count(self, counter: Counter, amount: float) -> None:
        """Hold an increment back."""
        self._counts[counter] = self._counts.get(counter, 0.0) + amount

    def sum(self, counter: Counter, amount: float) -> None:
        """Hold an increment of a sum back; it is added rounded, and the remainder stays for later lots."""
        self._sums[counter] = self._sums.get(counter, 0.0) + amount

    def offer(self) -> bool:
        """Add everything to the metrics if there are enough rows; returns whether there were."""
        if self.rows < self._size:
            return False
        for counter, amount in self._counts.items():
            counter.inc(amount)
        for counter, amount in self._sums.items():
            rounded = max(0.0, round(amount, SUM_DIGITS))
            counter.inc(rounded)
            self._sums[counter] = amount - rounded
        self._counts.clear()
        self.rows = 0
        return True
