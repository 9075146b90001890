//! The primitives that cross threads, or their stand-ins under loom: the only place either is named.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
