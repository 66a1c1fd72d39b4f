"""How conditions are measured: a job over images and ranks, what it collects, the table it keeps,
and where each number came from."""
