//! Sizes of memory as a person writes them.

use std::ops::RangeInclusive;

use trapline_devices::q35::{Pages, Ram, RamSplit};

/// The least guest memory: below this the firmware has no room for itself and its tables.
pub const MEMORY_LEAST: u64 = 16 << 20;
/// The most guest memory. A guard against a slip of the keyboard, not a limit of the machine.
pub const MEMORY_LARGEST: u64 = 4 << 40;

/// How many bits a guest physical address may have; the least is all that 64-bit processors had at first.
pub const PHYS_BITS: RangeInclusive<u8> = 36..=52;

/// Parses the width of a guest physical address.
pub(super) fn phys_bits(text: &str) -> Result<u8, String> {
    let (least, most) = (PHYS_BITS.start(), PHYS_BITS.end());
    let bits = text.parse().ok().filter(|bits| PHYS_BITS.contains(bits));
    bits.ok_or_else(|| format!("not a number of address bits; give {least} to {most}"))
}

/// Parses a number of bytes: digits, then nothing or `K`, `M`, `G`, `T` (also `KiB`, `MiB` and so on; powers of
/// 1024; case does not matter).
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default().to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(format!("'{unit}' is no unit of memory; use K, M, G or T, as in 512M")),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("not a size; give a whole number and a unit, as in 512M".into());
    }
    let too_large = || format!("more than the largest guest memory, {}", shown(MEMORY_LARGEST));
    let number: u64 = digits.parse().map_err(|_| too_large())?;
    number.checked_mul(1 << shift).ok_or_else(too_large)
}

/// Parses the size of guest RAM.
pub(super) fn memory(text: &str) -> Result<u64, String> {
    let bytes = parse(text)?;
    if bytes < MEMORY_LEAST {
        let unit =
            if text.bytes().all(|b| b.is_ascii_digit()) { " (a bare number counts bytes)" } else { "" };
        return Err(format!(
            "{} is less than the least guest memory, {}{unit}; give for example 512M",
            shown(bytes),
            shown(MEMORY_LEAST)
        ));
    }
    if bytes > MEMORY_LARGEST {
        return Err(format!("more than the largest guest memory, {}", shown(MEMORY_LARGEST)));
    }
    if !bytes.is_multiple_of(Ram::GRAIN) {
        return Err(format!("not a multiple of {}", shown(Ram::GRAIN)));
    }
    Ok(bytes)
}

/// Parses the size of huge pages.
pub(super) fn pages(text: &str) -> Result<Pages, String> {
    match parse(text) {
        Ok(0x20_0000) => Ok(Pages::Huge2M),
        Ok(0x4000_0000) => Ok(Pages::Huge1G),
        _ => Err("not a size of huge pages; give 2M or 1G".into()),
    }
}

/// Why RAM of `memory` bytes is not made of such pages, if so.
pub(super) fn misfit(memory: u64, pages: Pages) -> Option<String> {
    let size = pages.size()?;
    let split = RamSplit::of(memory);
    let fits = split.low.is_multiple_of(size) && split.high.is_multiple_of(size);
    (!fits).then(|| format!("memory of {} is no whole number of pages of {}", shown(memory), shown(size)))
}

/// A size in the largest unit that divides it.
pub(crate) fn shown(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (size, name) in UNITS {
        if bytes >= size && bytes.is_multiple_of(size) {
            return format!("{} {name}", bytes / size);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_numbers() {
        assert_eq!(shown(256), "256 bytes");
        assert_eq!(shown(0), "0 bytes");
        assert_eq!(shown(128 << 10), "128 KiB");
        assert_eq!(shown(3 << 30), "3 GiB");
        assert_eq!(shown(2 << 40), "2 TiB");
        assert_eq!(shown((1 << 30) + (1 << 20)), "1025 MiB");
    }
}
