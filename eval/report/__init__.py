"""The report of a run: tables, one HTML page and exports."""
