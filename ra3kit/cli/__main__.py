"""`python -m ra3kit.cli` is `ra3kit`."""

from ra3kit.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
