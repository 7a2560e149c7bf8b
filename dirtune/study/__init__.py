"""Studies: what is compared, as pure values. No Ray, no Optuna."""
