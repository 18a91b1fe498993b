"""JointIQ-Net: learned image compression and quality enhancement, trained jointly."""

import warnings

# A dependency of CompressAI warns of its own use of torch.jit at every start; no user can act on it.
warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
