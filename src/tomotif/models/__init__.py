"""Network architectures: tensors in, tensors out. No files, no losses. A new architecture is one file here."""

from tomotif.models import autoencoder3d, cb3d, dsrf3d, inception3d, motif3d, motif3d_fast, motif3d_rif, rb3d
from tomotif.models.registry import Architecture, architecture, architecture_names, build_model

__all__ = [
    "Architecture",
    "architecture",
    "architecture_names",
    "autoencoder3d",
    "build_model",
    "cb3d",
    "dsrf3d",
    "inception3d",
    "motif3d",
    "motif3d_fast",
    "motif3d_rif",
    "rb3d",
]
