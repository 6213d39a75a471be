"""Wire bytes to arrays and back. Strict: what is not exactly a request is refused, never guessed at."""
