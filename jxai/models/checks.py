"""What the classifiers of this package check besides their images."""


def check_classes(num_classes: int) -> None:
    """Refuse a number of classes that leaves no scores (Flax would return an array of none).

    Args:
        num_classes: number of scores a classifier is to return.

    Raises:
        ValueError: if `num_classes` is less than 1.
    """
    if num_classes < 1:
        raise ValueError(f"expected num_classes of at least 1, got {num_classes}: count the classes")
