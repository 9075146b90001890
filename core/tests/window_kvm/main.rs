//! The legacy window in all its modes, through the whole machine on the real KVM. Needs /dev/kvm.

mod code;
mod double;
mod order;
mod rest;
mod rig;
