"""What is served over HTTP: rows as JSON:API, actions, ``_config``, and whether all is well."""
