//! Changes of the map (design rules 11 and 12).

pub mod map;
