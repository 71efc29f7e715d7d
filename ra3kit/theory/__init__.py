"""The paper's theorems as code, on tabular MDPs that are solved exactly (`ra3kit theory`). Imports no torch."""
