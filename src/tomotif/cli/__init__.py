"""One thin file per command: read nouns, call one function, write nouns."""
