"""Reports for people: of one run, and of several runs side by side."""
