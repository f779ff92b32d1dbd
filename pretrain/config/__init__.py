"""Settings: `schema/` says what there is, `compose.py` turns files and overrides into one typed `Config`."""
