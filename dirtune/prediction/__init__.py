"""Use of the models that a sweep has kept: predictions for new samples, torch modules, exported files, and their model card."""
