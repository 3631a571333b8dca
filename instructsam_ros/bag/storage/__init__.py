"""The files of a bag: MCAP, SQLite and metadata.yaml as the messages that were recorded, whatever wrote them."""
