"""This host: processes, the host lock, cancellation, the journal, redaction of secrets."""
