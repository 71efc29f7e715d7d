"""Lightning callbacks of ra3kit."""

if (
    __name__ == "callbacks"
):  # an editable install puts the repository root on the path; two copies of a class never match
    raise ImportError("import ra3kit.callbacks, not callbacks")
