"""The record protocol between two vpntuns: greeting, bursts, parities, and the estimators of the path."""
