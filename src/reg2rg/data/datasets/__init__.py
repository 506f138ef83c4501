"""Where studies come from: one class a data-set layout."""
