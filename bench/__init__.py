"""What comfyserve costs, against its budgets; ``python -m bench`` prints the table."""
