"""What hskv does, shown on a private MariaDB that is gone afterwards: `make demo` runs it."""
