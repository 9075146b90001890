//! Addresses of the host that a guest keeps: what a real SeaBIOS makes of them, and what becomes of a guest that
//! moves one. Needs /dev/kvm, and SeaBIOS for the first.

mod card;
mod firmware;
mod moves;
