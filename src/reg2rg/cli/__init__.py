"""The command line: ``reg2rg``."""
