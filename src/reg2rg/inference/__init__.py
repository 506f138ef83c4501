"""One scan to one report, with a trained model, and the report into files.

In go a scan's path, where its masks are and a model; out comes a `ReportResult`. Read `pipeline` first;
`exporters` write results.
"""
