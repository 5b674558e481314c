"""Operations that are fast where XLA's own are slow; each gives what XLA's gives. Nothing here is public."""
