"""The record protocol between two vpntuns: HELLO, bursts, parities, and the estimators of the path."""
