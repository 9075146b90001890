//! The software VGA adapter, compatible with Bochs VBE: 1234:1111.
