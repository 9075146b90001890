//! A virtual machine monitor for KVM that gives a guest a physical VGA adapter.

pub mod adapter;
pub mod command;
pub mod config;
pub mod events;
pub mod firmware;
pub mod launch;
pub mod machine;
pub mod parts;
pub mod platform;
pub mod screen;
pub mod topology;
