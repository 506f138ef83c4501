"""Language models that write the report."""
