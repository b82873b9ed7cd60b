"""The reliability battery: claims of the README, tried a great many times. `python -m battery` in tests/, or `make battery`."""
