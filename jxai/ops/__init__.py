"""Operations that are fast where XLA's own are slow, each with XLA's results; none of them public."""

__all__: list[str] = []
