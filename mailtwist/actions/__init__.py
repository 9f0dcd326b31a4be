"""What may be asked of the server beside reading and writing rows: named operations."""
