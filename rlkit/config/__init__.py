"""Options of a run: their types, what composes them, what there is by name, whose code may be imported."""
