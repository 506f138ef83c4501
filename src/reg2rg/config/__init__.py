"""Configs: files folded into one, mistakes explained with file and line, imports held to an allow-list."""
