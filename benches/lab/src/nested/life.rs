//! Birth and death.
use super::Case;
pub const CASES: &[Case] = &[];
