"""What can be found out about a recipe's data before training, one module per question."""
