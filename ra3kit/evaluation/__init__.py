"""Evaluation: benchmarks, samples of a model, pass@k with intervals, paired comparison."""
