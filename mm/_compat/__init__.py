"""Private APIs of dependencies, each in one place with a test; pyproject.toml bounds the versions from above."""
