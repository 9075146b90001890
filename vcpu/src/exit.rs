//! From an exit to traps, and back: pure functions over the bytes that KVM hands over.
//!
//! One port exit may carry many elements of one size (string I/O); one memory exit moves 1 to 8
//! bytes, and of any number, since KVM cuts an access at a page's end. Devices see neither: they see
//! accesses of 1, 2, 4 or 8 bytes, in the order in which the guest made them.

use trapline_io::{Address, Gpa, Op, Port, Trap, Width};

/// Answers an `in`, or the elements of an `ins`: `data` holds elements of `size` bytes, all read from
/// `port` one after the other.
pub fn port_in(port: Port, size: usize, data: &mut [u8], mut carry_out: impl FnMut(Trap) -> u64) {
    let Some(width) = Width::of(size) else {
        data.fill(0xff);
        return;
    };
    for element in data.chunks_mut(size) {
        let value = carry_out(Trap { at: Address::Port(port), width, op: Op::Read });
        put(element, value);
    }
}

/// Carries out an `out`, or the elements of an `outs`: `data` holds elements of `size` bytes, all
/// written to `port` one after the other.
pub fn port_out(port: Port, size: usize, data: &[u8], mut carry_out: impl FnMut(Trap) -> u64) {
    let Some(width) = Width::of(size) else {
        return;
    };
    for element in data.chunks(size) {
        carry_out(Trap { at: Address::Port(port), width, op: Op::Write(get(element)) });
    }
}

/// Answers a load of `data.len()` bytes from `gpa`.
pub fn memory_read(gpa: Gpa, data: &mut [u8], mut carry_out: impl FnMut(Trap) -> u64) {
    let mut at = gpa.0;
    let mut rest = data;
    while !rest.is_empty() {
        let width = next_piece(at, rest.len());
        let (piece, behind) = rest.split_at_mut(width.bytes());
        put(piece, carry_out(Trap { at: Address::Gpa(Gpa(at)), width, op: Op::Read }));
        at = at.wrapping_add(width.bytes() as u64);
        rest = behind;
    }
}

/// Carries out a store of `data` to `gpa`.
pub fn memory_write(gpa: Gpa, data: &[u8], mut carry_out: impl FnMut(Trap) -> u64) {
    let mut at = gpa.0;
    let mut rest = data;
    while !rest.is_empty() {
        let width = next_piece(at, rest.len());
        let (piece, behind) = rest.split_at(width.bytes());
        carry_out(Trap { at: Address::Gpa(Gpa(at)), width, op: Op::Write(get(piece)) });
        at = at.wrapping_add(width.bytes() as u64);
        rest = behind;
    }
}

/// How much of `len` bytes at `at` goes in one access. What the guest did in 1, 2, 4 or 8 bytes stays
/// whole, aligned or not; what KVM cut at a page's end goes in the widest aligned pieces.
#[inline]
pub(crate) fn next_piece(at: u64, len: usize) -> Width {
    if let Some(width) = Width::of(len) {
        return width;
    }
    [Width::B8, Width::B4, Width::B2]
        .into_iter()
        .find(|width| width.bytes() <= len && at.is_multiple_of(width.bytes() as u64))
        .unwrap_or(Width::B1)
}

#[inline]
fn get(bytes: &[u8]) -> u64 {
    let mut value = [0; 8];
    for (to, from) in value.iter_mut().zip(bytes) {
        *to = *from;
    }
    u64::from_le_bytes(value)
}

#[inline]
fn put(bytes: &mut [u8], value: u64) {
    for (to, from) in bytes.iter_mut().zip(value.to_le_bytes()) {
        *to = from;
    }
}

#[cfg(test)]
mod tests;
