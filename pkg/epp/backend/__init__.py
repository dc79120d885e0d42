"""What we know about model servers: endpoints, their metrics, the table of both."""
