"""What a written constitution says of answers, by a language model that reads it."""
