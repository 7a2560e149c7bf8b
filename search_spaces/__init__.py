"""The studies that come with dirtune: one YAML file each, packaged as data."""
