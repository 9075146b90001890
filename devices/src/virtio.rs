//! Virtio devices over PCI.
