"""From judgements to training data that can be trusted."""
