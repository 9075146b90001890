//! Guest addresses as types of their own, and closed intervals of them.
//!
//! [`Gpa`] and [`Port`] cannot be mixed up, and have no arithmetic operators: every sum is checked.

use std::fmt;

/// A guest physical address, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gpa(pub u64);

/// An x86 I/O port, 0 to 0xffff.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub u16);

impl fmt::Debug for Gpa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// An address that can be counted from: what [`Span`] needs of [`Gpa`] and [`Port`].
pub trait Position: Copy + Ord + fmt::Debug {
    /// The address as a number.
    fn raw(self) -> u64;
    /// The address with this number, if there is one.
    fn from_raw(raw: u64) -> Option<Self>;
}

impl Position for Gpa {
    fn raw(self) -> u64 {
        self.0
    }
    fn from_raw(raw: u64) -> Option<Self> {
        Some(Gpa(raw))
    }
}

impl Position for Port {
    fn raw(self) -> u64 {
        u64::from(self.0)
    }
    fn from_raw(raw: u64) -> Option<Self> {
        u16::try_from(raw).ok().map(Port)
    }
}

/// A closed, never empty interval of addresses: both ends belong to it, so that the whole of an
/// address space is expressible.
///
/// ```
/// use trapline_io::{Port, Span};
/// let vga = Span::new(Port(0x3c0), Port(0x3df)).unwrap();
/// assert!(vga.contains(Port(0x3da)));
/// assert_eq!(vga.offset_of(Port(0x3da)), Some(0x1a));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span<A> {
    first: A,
    last: A,
}

impl<A: fmt::Debug> fmt::Debug for Span<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}-{:?}", self.first, self.last)
    }
}

impl<A: Position> Span<A> {
    /// The interval from `first` to `last`, both included; `None` if they are the wrong way round.
    pub fn new(first: A, last: A) -> Option<Self> {
        (first <= last).then_some(Span { first, last })
    }

    /// `len` addresses from `first` on; `None` if `len` is zero or the end is past the space's end.
    pub fn of_len(first: A, len: u64) -> Option<Self> {
        let last = first.raw().checked_add(len.checked_sub(1)?)?;
        Span::new(first, A::from_raw(last)?)
    }

    /// The lowest address.
    pub fn first(self) -> A {
        self.first
    }

    /// The highest address.
    pub fn last(self) -> A {
        self.last
    }

    /// How many addresses follow the first: the length less one, which cannot overflow.
    pub fn extent(self) -> u64 {
        self.last.raw() - self.first.raw()
    }

    /// Whether `at` lies inside.
    pub fn contains(self, at: A) -> bool {
        self.first <= at && at <= self.last
    }

    /// How far `at` lies behind the first address, if it lies inside.
    pub fn offset_of(self, at: A) -> Option<u64> {
        self.contains(at).then(|| at.raw() - self.first.raw())
    }

    /// The addresses that both intervals have.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Span::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// Whether the intervals share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.intersection(other).is_some()
    }

    /// What lies before and what lies behind `hole` in this interval.
    pub fn without(self, hole: Self) -> [Option<Self>; 2] {
        if !self.overlaps(hole) {
            return [Some(self), None];
        }
        let below = hole.first.raw().checked_sub(1).and_then(A::from_raw);
        let above = hole.last.raw().checked_add(1).and_then(A::from_raw);
        [
            below.and_then(|last| Span::new(self.first, last)),
            above.and_then(|first| Span::new(first, self.last)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_space_is_a_span() {
        let all = Span::new(Gpa(0), Gpa(u64::MAX)).unwrap();
        assert_eq!(all.extent(), u64::MAX);
        assert_eq!(Span::of_len(Port(0), 0x1_0000).unwrap().last(), Port(0xffff));
        assert_eq!(Span::of_len(Port(1), 0x1_0000), None);
        assert_eq!(Span::of_len(Gpa(0), 0), None);
    }

    #[test]
    fn a_hole_leaves_both_sides() {
        let span = Span::new(Port(10), Port(20)).unwrap();
        let hole = Span::new(Port(12), Port(13)).unwrap();
        assert_eq!(span.without(hole), [Span::new(Port(10), Port(11)), Span::new(Port(14), Port(20))]);
        assert_eq!(span.without(span), [None, None]);
        let all = Span::new(Port(0), Port(u16::MAX)).unwrap();
        assert_eq!(span.without(all), [None, None]);
    }
}
