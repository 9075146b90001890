//! The memory map `etc/e820`.

use trapline_devices::q35::{HIGH_RAM, RamSplit};
use trapline_io::{Gpa, Span};
use trapline_vcpu::Vm;

/// What a range of the memory map is (ACPI 6.5 table 15.4).
#[derive(Clone, Copy)]
enum Kind {
    Ram = 1,
    Reserved = 2,
}

/// The bytes of `etc/e820`: per range a 64-bit address, a 64-bit length and a 32-bit type, little-endian.
///
/// SeaBIOS adds what it reserves itself (its own segment, the configuration space window, the ACPI
/// tables) to what it passes on, and keeps BARs away from what is `reserved` besides.
pub fn table(ram: RamSplit, reserved: &[Span<Gpa>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut add = |at: u64, len: u64, kind: Kind| {
        bytes.extend_from_slice(&at.to_le_bytes());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&(kind as u32).to_le_bytes());
    };
    let (own, own_len) = Vm::RESERVED;
    let (low, high): (Vec<_>, Vec<_>) = ram.pieces().partition(|(at, _)| *at < Gpa(HIGH_RAM));
    low.into_iter().for_each(|(at, len)| add(at.0, len, Kind::Ram));
    add(own, own_len, Kind::Reserved);
    high.into_iter().for_each(|(at, len)| add(at.0, len, Kind::Ram));
    for span in reserved {
        add(span.first().0, span.extent().saturating_add(1), Kind::Reserved);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bytes: &[u8], index: usize) -> (u64, u64, u32) {
        let at = &bytes[index * 20..][..20];
        (
            u64::from_le_bytes(at[..8].try_into().unwrap()),
            u64::from_le_bytes(at[8..16].try_into().unwrap()),
            u32::from_le_bytes(at[16..].try_into().unwrap()),
        )
    }

    #[test]
    fn a_machine_has_an_entry_for_each_piece_of_ram_and_what_is_reserved() {
        let small = table(RamSplit::of(512 << 20), &[]);
        assert_eq!(small.len(), 40);
        assert_eq!(entry(&small, 0), (0, 512 << 20, 1));
        assert_eq!(entry(&small, 1), (0xfeff_c000, 0x4000, 2));
        let hole = Span::of_len(Gpa(0xfd_0000_0000), 12 << 30).unwrap();
        let large = table(RamSplit::of(8 << 30), &[hole]);
        assert_eq!(large.len(), 80);
        assert_eq!(entry(&large, 3), (0xfd_0000_0000, 12 << 30, 2));
        assert_eq!(entry(&large, 0), (0, 2 << 30, 1));
        assert_eq!(entry(&large, 2), (4 << 30, 6 << 30, 1));
        let kept = Span::of_len(Gpa(6 << 30), 1 << 20).unwrap();
        let with_gap = table(RamSplit::around(8 << 30, &[kept], 4096).unwrap(), &[]);
        assert_eq!(entry(&with_gap, 2), (4 << 30, 2 << 30, 1));
        assert_eq!(entry(&with_gap, 3), (7 << 30, 4 << 30, 1));
    }
}
