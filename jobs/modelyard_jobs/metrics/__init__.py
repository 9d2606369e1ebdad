"""What answers are worth, in numbers with their 95 % intervals: one module per kind of answer. Pure numpy; no model, no file."""
