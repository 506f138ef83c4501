"""The command line ``reg2rg``: one file a command, each turning mistakes into one message."""
