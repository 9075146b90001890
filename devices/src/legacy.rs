//! The legacy VGA ranges: what the function that owns VGA decodes at fixed addresses, beside its BARs.
//!
//! They are region 8 as VFIO has it, [`Region::VGA`], whose offsets are the addresses themselves.

mod claims;
pub mod owner;
pub mod phase;
pub mod shadow;
pub mod state;
#[cfg(test)]
mod testing;

pub use claims::claims;
pub use owner::Owner;

/// The window: first and last address.
pub const WINDOW: (u64, u64) = (0xa_0000, 0xb_ffff);
/// The ports, first and last of each run. 0x3bc to 0x3bf between them are a parallel port's.
pub const PORTS: [(u16, u16); 2] = [(0x3b0, 0x3bb), (0x3c0, 0x3df)];

/// What a function with legacy VGA may do to be fast (design section 5). Nothing is what it does by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// KVM may collect writes.
    pub coalesced: bool,
    /// The text window may be RAM with what changed carried out later. Only together with `coalesced`.
    pub shadowed: bool,
    /// The phases that it may be in.
    pub phase: Phase,
}

/// The phases of a function that owns legacy VGA (design rule 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// As its accesses tell.
    Auto,
    /// BARs always trap, so that writes may be collected and posted.
    Legacy,
    /// BARs are always mapped, and every access to the window is strict.
    #[default]
    Native,
}
