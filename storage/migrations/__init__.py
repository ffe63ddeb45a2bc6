"""Alembic migrations of the SQL index."""
