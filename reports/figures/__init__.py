"""Pictures of returns, aggregates, times and studies."""
