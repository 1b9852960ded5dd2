"""Files, folders and tables in memory -> columns of cells."""
