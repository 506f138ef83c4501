"""One scan to one report, with a trained model. Read `pipeline` first."""
