//! trapline: a virtual machine monitor that gives a guest a physical VGA adapter.

pub mod command;
pub mod config;
pub mod screen;
