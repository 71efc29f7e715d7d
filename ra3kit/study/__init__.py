"""Small-scale studies of the paper's claims: a generated family of programs whose intents are known."""
