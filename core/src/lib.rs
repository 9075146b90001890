//! Placeholder.
pub mod firmware;
