"""Everything that looks at pixels. Knows no network and no SQL."""
