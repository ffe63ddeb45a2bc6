"""Everything that stays: SQL index, object store, spool. Knows neither node nor ai."""
