"""Claims on trial: a sentence, the sealed runs that bear on it, and whether it holds (docs/claims.md)."""
