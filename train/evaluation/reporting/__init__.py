"""Human-readable results: console tables and HTML reports."""
