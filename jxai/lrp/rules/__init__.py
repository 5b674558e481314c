"""What a rule is, the rules with their formulas, and the composites that say which operation gets which."""
