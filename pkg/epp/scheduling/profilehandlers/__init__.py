"""Profile handlers: which profiles run."""
