//! The legacy window in all its modes, through the whole machine on the real KVM. Needs /dev/kvm.

mod card;
mod code;
mod double;
mod handover;
mod order;
mod rest;
mod rig;
mod rival;
mod same;
