//! The devices of a PC that are not PCI functions.
