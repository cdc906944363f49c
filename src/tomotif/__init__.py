"""tomotif: find the macromolecular structures in cellular cryo-electron tomograms, without templates."""

__version__ = "0.1.0"
