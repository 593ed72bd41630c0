"""Read what is validated: files, rows, documents."""
