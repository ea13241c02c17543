"""Which pixels mattered."""
