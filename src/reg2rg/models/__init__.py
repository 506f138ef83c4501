"""From views and prompts to losses and reports, without Lightning: encoders, projectors, language models.

Read `reporter` first: it puts them together.
"""
