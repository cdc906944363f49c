"""The stages of the line. Each has its settings and one or two public functions; siblings never import each other."""
