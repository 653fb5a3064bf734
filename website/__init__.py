"""What makes the site of the repository's pages: hooks of mkdocs, and the gallery that it shows."""
