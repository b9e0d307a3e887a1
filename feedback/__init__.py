"""From what people and a constitution say about answers to a versioned dataset."""
