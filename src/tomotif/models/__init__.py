"""Network architectures: tensors in, tensors out. No files, no losses. A new architecture is one file here."""

from tomotif.models import dsrf3d, motif3d
from tomotif.models.registry import Architecture, architecture, architecture_names, build_model

__all__ = ["Architecture", "architecture", "architecture_names", "build_model", "dsrf3d", "motif3d"]
