"""What the tests of many processes share: the ranks (ranks.py), the model they train (training.py), the cases."""
