"""This host: processes, locks, cancellation, the journal, secrets in output."""
