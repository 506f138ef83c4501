"""Whether each paragraph depends on its own region: interventions on one region's tokens, and what paragraphs become.

`subject` says what is audited, `run` intervenes and writes records, `measures` turns records into numbers.
"""
