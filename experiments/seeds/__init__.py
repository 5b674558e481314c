"""What guidance brings over many seeds, and what changes it: small trainings of every head."""
