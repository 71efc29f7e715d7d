"""The kit's own problem set: reference functions by difficulty; `ra3kit.evaluation.embedded` makes `Problem`s."""
