"""Oddities that do not stop a scene from loading, counted for one warning line each."""

from collections import Counter


class Notes:
    """Counts what a reader leaves out or guesses."""

    def __init__(self):
        self.counts: Counter[str] = Counter()
        self.undrawn: Counter[str] = Counter()
        self.names: dict[str, dict[str, None]] = {}

    def count(self, what: str, number: int = 1, name: str = "") -> None:
        """Notes `number` more cases of `what`.

        name: a word that tells cases apart; the first few are listed.
        """
        if number:
            self.counts[what] += number
            if name:
                self.names.setdefault(what, {})[name] = None

    def fields(self) -> dict:
        """The fields of a scene that say what is missing from it."""
        return {"undrawn": dict(self.undrawn), "warnings": self.warnings()}

    def warnings(self) -> tuple[str, ...]:
        """One line each, e.g. "tracks left out, fewer than two observations: 2 (17, 23)"."""
        return tuple(f"{what}: {n}{self._names(what)}" for what, n in self.counts.items())

    def _names(self, what: str) -> str:
        return f" ({listing(self.names[what])})" if what in self.names else ""


def listing(words, limit: int = 8) -> str:
    """The words in one line, at most `limit` of them."""
    words = [str(word) for word in words]
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    return ", ".join(words[:limit]) + more
