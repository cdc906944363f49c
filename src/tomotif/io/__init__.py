"""Files to nouns and nouns to files. Only here are x,y,z order, headers and other programs' conventions known."""
