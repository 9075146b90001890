//! The vfio-user protocol, both ends.
