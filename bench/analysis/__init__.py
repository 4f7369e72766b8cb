"""Numbers from samples: percentiles, intervals, contrasts, validity. Pure."""
