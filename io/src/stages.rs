//! Where the time of an access goes.

/// Histograms of the stages of a caller's accesses.
#[derive(Debug, Default)]
pub struct Stages {}
