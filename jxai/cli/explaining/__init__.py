"""`jxai explain`: pictures in, heat maps out, and what judging them takes from it."""
