"""What is served over HTTP; today whether the server is alive and well."""
