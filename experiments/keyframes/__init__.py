"""What keyframes save, and that they lose nothing."""
