"""`jxai judge`: which explanation to trust."""
