"""What other migration tools left in a database: which tool, what it applied, which files that is here."""
