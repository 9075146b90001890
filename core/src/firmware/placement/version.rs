//! What versions of SeaBIOS do differently.

use std::fmt;

/// A version of SeaBIOS.
///
/// ```
/// use trapline::firmware::placement::Version;
/// let image = b"SeaBIOS (version %s)\x001.16.3-debian-1.16.3-2\0....";
/// assert_eq!(Version::of_image(image), Some(Version(1, 16, 3)));
/// assert_eq!(Version::of_image(b"an image of another firmware"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(
    /// Always 1 so far.
    pub u16,
    /// The release.
    pub u16,
    /// The stable update; 0 where there is none.
    pub u16,
);

/// Who made the processor, by CPUID leaf 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// GenuineIntel.
    Intel,
    /// AuthenticAMD.
    Amd,
    /// Somebody else.
    Other,
}

impl Vendor {
    /// By the name in CPUID leaf 0.
    pub fn of(name: [u8; 12]) -> Vendor {
        match &name {
            b"GenuineIntel" => Vendor::Intel,
            b"AuthenticAMD" => Vendor::Amd,
            _ => Vendor::Other,
        }
    }
}

/// Whether firmware believes a processor that tells so many bits of a physical address: emulators told 36 or
/// 40 whatever was true. SeaBIOS and OVMF have the same rule.
pub(crate) fn is_believed(bits: u8, vendor: Vendor) -> bool {
    matches!((bits, vendor), (41.., _) | (36 | 39, Vendor::Intel) | (40, Vendor::Amd))
}

/// The first words of every SeaBIOS on a screen.
const NAME: &[u8] = b"SeaBIOS";
/// 64-bit addresses are handed out from the end of what the processor reaches.
const FROM_THE_TOP: Version = Version(1, 16, 3);
/// Of the alignments of a window with room for hot-plug the larger one counts.
const ALIGNS: Version = Version(1, 16, 4);
/// The lower limit of [`Version::top`], and the simpler rule of [`Version::pads`].
const NEW_RULES: Version = Version(1, 17, 0);

impl Version {
    /// The version that a firmware image tells of itself; `None` if it is no SeaBIOS.
    pub fn of_image(image: &[u8]) -> Option<Version> {
        // Linkers fill gaps with what they like.
        let words = image.split(|byte| !byte.is_ascii_graphic());
        let found = words.filter_map(Version::of_word).max();
        found.filter(|_| image.windows(NAME.len()).any(|bytes| bytes == NAME))
    }

    /// From `1.16.3-debian-1.16.3-2` or `rel-1.16.3-0-ga6ed6b7`.
    fn of_word(word: &[u8]) -> Option<Version> {
        let text = std::str::from_utf8(word).ok()?;
        let text = text.strip_prefix("rel-").unwrap_or(text);
        let (number, _) = text.split_once('-')?;
        let mut parts = number.split('.').map(str::parse);
        let version = Version(parts.next()?.ok()?, parts.next()?.ok()?, parts.next().unwrap_or(Ok(0)).ok()?);
        (version.0 == 1 && parts.next().is_none()).then_some(version)
    }

    /// Whether it looks how far the processor can address.
    pub(super) fn knows_width(self) -> bool {
        self >= FROM_THE_TOP
    }

    /// Whether it expects a guest that uses 64-bit addresses, and hands them out where it need not: there is RAM
    /// above 4 GiB, and, for some versions, a width that is `believed`.
    pub(super) fn pads(self, believed: bool, high_ram: u64) -> bool {
        high_ram > 0 && (self >= NEW_RULES || self.knows_width() && believed)
    }

    /// Whether a bridge with room for hot-plug keeps the alignment of what is behind it.
    pub(super) fn aligns(self) -> bool {
        self >= ALIGNS
    }

    /// How many bits of an address it believes a processor to have that tells `bits`, if it believes it.
    pub fn believes(self, bits: u8, vendor: Vendor) -> Option<u8> {
        (is_believed(bits, vendor) && self.knows_width()).then_some(bits)
    }

    /// The end of the addresses that it hands out, for believed `bits` and this much RAM above 4 GiB: guests
    /// of old have trouble further up.
    pub(super) fn top(self, bits: u8, high_ram: u64) -> u64 {
        let most = match self {
            version if version < NEW_RULES => 46,
            _ if high_ram < 1 << 40 => 44,
            _ => 63,
        };
        1 << bits.min(most)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEWEST: Version = Version(1, 17, 0);

    #[test]
    fn versions_are_found_as_distributions_and_qemu_write_them() {
        let version = |text: &str| Version::of_image(format!("SeaBIOS\0x-1\0{text}\0").as_bytes());
        assert_eq!(version("1.16.2-debian-1.16.2-1"), Some(Version(1, 16, 2)));
        assert_eq!(version("rel-1.17.0-0-gb52ca86e094d-prebuilt.qemu.org"), Some(Version(1, 17, 0)));
        assert_eq!(version("1.17-1"), Some(Version(1, 17, 0)));
        assert_eq!(Version::of_image(b"SeaBIOS\0\x901.17.0-debian-1.17.0-1\0\x90"), Some(NEWEST));
        for other in ["edk2-stable202605", "2.1.0-1", "1.16.2", "1.2.3.4-5", "-", "1.-1", "99999.1-1"] {
            assert_eq!(version(other), None, "{other}");
        }
    }

    #[test]
    fn widths_that_emulators_made_up_are_not_believed() {
        let version = Version(1, 16, 3);
        for (bits, vendor, believed) in [
            (36, Vendor::Intel, true),
            (39, Vendor::Intel, true),
            (40, Vendor::Intel, false),
            (36, Vendor::Amd, false),
            (40, Vendor::Amd, true),
            (40, Vendor::Other, false),
            (41, Vendor::Other, true),
            (52, Vendor::Intel, true),
        ] {
            assert_eq!(version.believes(bits, vendor).is_some(), believed, "{bits} {vendor:?}");
        }
        assert_eq!(Version(1, 16, 2).believes(46, Vendor::Intel), None);
    }

    #[test]
    fn the_end_is_limited() {
        assert_eq!(Version(1, 16, 3).top(52, 0), 1 << 46);
        assert_eq!(Version(1, 17, 0).top(52, 0), 1 << 44);
        assert_eq!(Version(1, 17, 0).top(48, 1 << 40), 1 << 48);
        assert_eq!(Version(1, 17, 0).top(39, 0), 1 << 39);
    }
}
