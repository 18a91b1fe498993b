"""JointIQ-Net: learned image compression and quality enhancement, trained jointly, coded to real files."""
