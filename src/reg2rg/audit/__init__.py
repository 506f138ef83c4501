"""Does a paragraph depend on its own region? Interventions on the tokens of one region, and what all paragraphs become.

`subject` says what is audited, `run` intervenes and writes records, `measures` turns records into numbers.
"""
