"""Certificates and the contexts made of them; never who may log in or relay."""
