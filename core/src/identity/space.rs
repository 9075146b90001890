//! What of one space of addresses is taken, and what is free.

/// Who has taken a range, as far as others may lie in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The machine itself.
    Platform,
    /// A function on bus 0.
    Function(usize),
    /// What passes through a window of a bridge.
    Window(usize, Pool),
}

/// A window of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    Ports,
    Memory,
    Prefetchable,
}

/// A range by its first and last address.
pub(super) type Bounds = (u64, u64);

#[derive(Clone, Debug)]
struct Taken {
    bounds: Bounds,
    owner: Owner,
    /// The window itself, in which its owner's others may lie.
    window: bool,
    /// What messages call it.
    what: String,
}

/// See the module's page. A machine has few ranges, so that a list will do.
#[derive(Clone, Debug, Default)]
pub(super) struct Space(Vec<Taken>);

impl Space {
    pub fn take(&mut self, bounds: Bounds, owner: Owner, what: impl Into<String>) {
        self.0.push(Taken { bounds, owner, window: false, what: what.into() });
    }

    /// The same for a window, which takes the place of an earlier one of the same owner.
    pub fn open(&mut self, bounds: Bounds, owner: Owner, what: impl Into<String>) {
        self.0.retain(|taken| !(taken.window && taken.owner == owner));
        self.0.push(Taken { bounds, owner, window: true, what: what.into() });
    }

    /// What of others is in the way of a window of `owner`.
    pub fn foreign(&self, bounds: Bounds, owner: Owner) -> Option<&str> {
        let found = self.0.iter().find(|taken| taken.owner != owner && overlap(taken.bounds, bounds));
        found.map(|taken| &*taken.what)
    }

    /// What is in the way of something of `owner` that shares nothing.
    pub fn in_the_way(&self, bounds: Bounds, owner: Owner) -> Option<&str> {
        self.blocking(bounds, owner).map(|taken| &*taken.what)
    }

    /// The lowest free place of `size` bytes at a multiple of `align`, a power of two, within `within`.
    pub fn lowest(&self, size: u64, align: u64, within: Bounds, owner: Owner) -> Option<u64> {
        let mut at = within.0.checked_next_multiple_of(align)?;
        loop {
            let last = at.checked_add(size - 1).filter(|last| *last <= within.1)?;
            match self.blocking((at, last), owner) {
                None => return Some(at),
                Some(taken) => at = taken.bounds.1.checked_add(1)?.checked_next_multiple_of(align)?,
            }
        }
    }

    /// The highest.
    pub fn highest(&self, size: u64, align: u64, within: Bounds, owner: Owner) -> Option<u64> {
        let below = |end: u64| Some((end.checked_sub(size - 1)?) & !(align - 1));
        let mut at = below(within.1)?;
        loop {
            let at_least = at >= within.0;
            match self.blocking((at, at.checked_add(size - 1)?), owner).filter(|_| at_least) {
                None => return at_least.then_some(at),
                Some(taken) => at = below(taken.bounds.0.checked_sub(1)?)?,
            }
        }
    }

    fn blocking(&self, bounds: Bounds, owner: Owner) -> Option<&Taken> {
        let open = |taken: &Taken| taken.window && taken.owner == owner;
        self.0.iter().find(|taken| overlap(taken.bounds, bounds) && !open(taken))
    }
}

fn overlap(one: Bounds, other: Bounds) -> bool {
    one.0 <= other.1 && other.0 <= one.1
}
