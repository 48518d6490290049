"""Making files durable."""
