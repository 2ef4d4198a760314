"""Counts that reach the metrics in lots, so that two scrapes around one request do not give its row back.

At low traffic the difference of two scrapes is one person: the bin of each answer and the exact risk. So the
increments of at least `size` rows are held back and added together, and sums leave rounded. What a lot does
not hide is said in docs/security.md: an answer that all of its rows share, and a caller who fills a lot but
for one row.
"""

from prometheus_client import Counter

# Digits after the point of sums of risks; what rounding takes off is added to a later lot.
SUM_DIGITS = 2


class Lot:
    """Increments of counters that wait for one another. For one thread at a time."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._counts: dict[Counter, float] = {}
        self._sums: dict[Counter, float] = {}
        self.rows = 0

    def count(self, counter: Counter, amount: float) -> None:
        """Hold an increment back."""
        self._counts[counter] = self._counts.get(counter, 0.0) + amount

    def sum(self, counter: Counter, amount: float) -> None:
        """Hold an increment of a sum back, which leaves rounded; the rest stays for later lots."""
        self._sums[counter] = self._sums.get(counter, 0.0) + amount

    def offer(self) -> bool:
        """Add everything to the metrics if that is of enough rows; whether it was."""
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
