"""Evidence that a trial measured what its name says: questions, answers, facts. Pure."""
