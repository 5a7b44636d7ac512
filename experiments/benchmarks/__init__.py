"""What attribution costs, in units of what it is compared with: training steps, or the paper's own procedure."""
