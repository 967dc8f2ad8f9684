"""Configuration of the commands: a dataclass each, parsed from a YAML file and dotted overrides."""
