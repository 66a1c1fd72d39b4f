"""From recorded tables to verdicts: claims and their rules, declared before the results, the
evidence that each is judged by, the board that shows it, and the page of results."""
