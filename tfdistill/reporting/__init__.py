"""From records to tables, figures, statistics and the report."""
