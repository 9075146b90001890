//! What a function decodes, from sysfs' `resource`: a line each for six BARs and the ROM, with first and
//! last address and the kernel's flags (Linux, include/linux/ioport.h).

use serde::Serialize;
use trapline_devices::rom::shadow;

const IO: u64 = 0x100;
const MEMORY: u64 = 0x200;
const PREFETCHABLE: u64 = 0x2000;
const MEMORY_64: u64 = 0x10_0000;
/// The place of the ROM.
const ROM: usize = 6;

/// A base address register of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostBar {
    /// 0 to 5.
    pub index: u8,
    /// What it decodes.
    pub kind: HostBarKind,
    /// Whether reads have no side effects.
    pub prefetchable: bool,
    /// Where the host has put it; zero if nowhere, or if the reader may not know.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// What a base address register decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostBarKind {
    /// Ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere.
    Memory64,
}

/// The ROM as the kernel would give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HostRom {
    /// Bytes, of the base address register or of the shadow.
    pub size: u64,
    /// It is not the adapter's own but what the host's firmware made of it ([`shadow`]).
    pub shadow: bool,
}

/// Reads all lines.
pub(super) fn parse(text: &str) -> (Vec<HostBar>, Option<HostRom>) {
    let lines: Vec<[u64; 3]> = text.lines().map(|line| numbers(line).unwrap_or_default()).collect();
    let bars = lines.iter().take(ROM).zip(0..).filter_map(|(line, index)| bar(index, *line)).collect();
    let rom = lines.get(ROM).and_then(|[start, end, flags]| {
        let size = size(*start, *end)?;
        Some(HostRom { size, shadow: shadow::is_resource(*start, *flags) })
    });
    (bars, rom)
}

fn bar(index: u8, [start, end, flags]: [u64; 3]) -> Option<HostBar> {
    let kind = match flags {
        _ if flags & IO != 0 => HostBarKind::Io,
        _ if flags & MEMORY == 0 => return None,
        _ if flags & MEMORY_64 != 0 => HostBarKind::Memory64,
        _ => HostBarKind::Memory32,
    };
    let size = size(start, end)?;
    Some(HostBar { index, kind, prefetchable: flags & PREFETCHABLE != 0, address: start, size })
}

fn size(start: u64, end: u64) -> Option<u64> {
    // A resource that is not there has zeros.
    if end == 0 { None } else { end.checked_sub(start)?.checked_add(1) }
}

fn numbers(line: &str) -> Option<[u64; 3]> {
    let mut fields =
        line.split_whitespace().map(|field| u64::from_str_radix(field.strip_prefix("0x")?, 16).ok());
    Some([fields.next()??, fields.next()??, fields.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_adapters_lines_are_read() {
        // stdvga as boot adapter under Linux 6.12, and an e1000e's port BAR in the place of BAR 2.
        let text = "0x00000000fd000000 0x00000000fdffffff 0x0000000000042208\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x000000000000c000 0x000000000000c01f 0x0000000000040101\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x0000004000000000 0x0000004007ffffff 0x000000000014220c\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x00000000000c0000 0x00000000000dffff 0x0000000000000212\n";
        let (bars, rom) = parse(text);
        let short: Vec<_> =
            bars.iter().map(|bar| (bar.index, bar.kind, bar.prefetchable, bar.size)).collect();
        assert_eq!(
            short,
            [
                (0, HostBarKind::Memory32, true, 16 << 20),
                (2, HostBarKind::Io, false, 32),
                (4, HostBarKind::Memory64, true, 128 << 20)
            ]
        );
        assert_eq!(rom, Some(HostRom { size: 0x2_0000, shadow: true }));
    }

    #[test]
    fn lines_that_are_not_understood_are_no_resource() {
        assert_eq!(parse(""), (vec![], None));
        assert_eq!(parse("x\n0x1 0x0 0x200\n0x0 0xffffffffffffffff 0x200\n"), (vec![], None));
    }
}
