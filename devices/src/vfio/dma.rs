//! Guest memory as devices see it: what may be mapped where, and what a refusal means.

use std::fmt;
use std::ops::RangeInclusive;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};
use trapline_io::{Gpa, Span};

/// Where a device's writes are messages to the interrupt controllers and reach no memory.
const MESSAGES: RangeInclusive<u64> = 0xfee0_0000..=0xfeef_ffff;
/// How much is mapped in one call: the largest page that an IOMMU knows. Between two calls one can stop.
const PIECE: u64 = 1 << 30;
/// What addresses and lengths are multiples of.
pub(super) const PAGE: u64 = 4096;

/// Why memory is not mapped, or not unmapped, for DMA.
#[derive(Debug, thiserror::Error)]
pub enum DmaError {
    /// The caller set its flag.
    #[error("mapping memory for DMA was stopped")]
    Stopped,
    /// No device is open, so there is nothing to map for.
    #[error("no device is open that could reach memory")]
    NoDevice,
    /// Addresses and lengths must be multiples of 4096, and lie in the memory.
    #[error("{len:#x} bytes at {at:?} are not whole pages of the memory given")]
    Pages {
        /// Where.
        at: Gpa,
        /// How many bytes.
        len: u64,
    },
    /// Something is there already.
    #[error("{0:?} is mapped for DMA already")]
    Taken(Span<Gpa>),
    /// Only a part of what was mapped in one call is to be unmapped.
    #[error("{0:?} cuts through what was mapped for DMA")]
    Cut(Span<Gpa>),
    /// The IOMMU cannot translate these addresses, or keeps them for itself.
    #[error(
        "guest memory at {wanted:?} is out of the reach of the host's IOMMU, which covers {}: give the guest \
         less memory",
        Ranges(.reachable)
    )]
    Unreachable {
        /// The part of the memory.
        wanted: Span<Gpa>,
        /// What devices can reach.
        reachable: Vec<Span<Gpa>>,
    },
    /// The kernel may not lock as much memory as DMA needs.
    #[error(
        "the kernel may lock {} for this process (RLIMIT_MEMLOCK), and DMA needs {} of guest memory locked: \
         raise the limit (ulimit -l, LimitMEMLOCK= of a systemd unit) or run as root",
        Size(*.limit),
        Size(*.needed)
    )]
    Locked {
        /// The limit, in bytes.
        limit: u64,
        /// What was locked, and was to be, in bytes.
        needed: u64,
    },
    /// The kernel does not tell what can be reached.
    #[error("the kernel does not tell which addresses the IOMMU covers: {reason}")]
    Ranges {
        /// The kernel's reason in words.
        reason: String,
    },
    /// Another refusal.
    #[error("the kernel refused to {what} {span:?} for DMA: {reason}")]
    Refused {
        /// `map` or `unmap`.
        what: &'static str,
        /// Which addresses.
        span: Span<Gpa>,
        /// The kernel's reason in words.
        reason: String,
    },
}

/// A number of bytes for people.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Size(bytes) = *self;
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if bytes >= 1 << shift && (bytes.is_multiple_of(1 << shift) || bytes >> shift >= 10) {
                return write!(f, "{} {unit}", bytes >> shift);
            }
        }
        write!(f, "{bytes} bytes")
    }
}

/// Ranges for people.
struct Ranges<'a>(&'a [Span<Gpa>]);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, range) in self.0.iter().enumerate() {
            write!(f, "{}{range:?}", if place == 0 { "" } else { ", " })?;
        }
        if self.0.is_empty() { write!(f, "nothing") } else { Ok(()) }
    }
}

/// The calls that map `wanted`: in ascending order, without the addresses of message interrupts.
///
/// # Errors
/// Something of it is neither reachable nor one of those.
pub(super) fn calls(wanted: Span<Gpa>, reachable: &[Span<Gpa>]) -> Result<Vec<Span<Gpa>>, DmaError> {
    let messages = Span::new(Gpa(*MESSAGES.start()), Gpa(*MESSAGES.end()));
    let parts = messages.map_or([Some(wanted), None], |messages| wanted.without(messages));
    let mut calls = Vec::new();
    for part in parts.into_iter().flatten() {
        if !covered(part, reachable) {
            return Err(DmaError::Unreachable { wanted: part, reachable: reachable.to_vec() });
        }
        let mut rest = Some(part);
        while let Some(here) = rest {
            let last = Gpa(here.first().0 | (PIECE - 1));
            let cut = Span::new(here.first(), last.min(here.last())).unwrap_or(here);
            calls.push(cut);
            rest = here.without(cut)[1];
        }
    }
    Ok(calls)
}

/// Whether ascending ranges together hold all of `part`.
fn covered(part: Span<Gpa>, ranges: &[Span<Gpa>]) -> bool {
    let mut next = part.first();
    for range in ranges.iter().filter(|range| range.last() >= part.first()) {
        if range.first() > next {
            return false;
        }
        if range.last() >= part.last() {
            return true;
        }
        next = Gpa(range.last().0 + 1);
    }
    false
}

/// Whether this process may lock any amount of memory, so that its limit means nothing to the kernel. The capability
/// counts in the host's own user namespace only.
pub(super) fn locks_all() -> bool {
    let ids = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let is_hosts = ids.split_whitespace().eq(["0", "0", "4294967295"]);
    is_hosts && capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}

/// What the kernel's refusal to map `span` means, when `locked` bytes are mapped already. `locks_all` is
/// what [`locks_all`] said.
pub(super) fn refusal(errno: Errno, span: Span<Gpa>, locked: u64, locks_all: bool) -> DmaError {
    let limit = getrlimit(Resource::Memlock).current;
    explain(errno, span, locked, limit.filter(|_| !locks_all))
}

fn explain(errno: Errno, span: Span<Gpa>, locked: u64, limit: Option<u64>) -> DmaError {
    let needed = locked.saturating_add(span.extent()).saturating_add(1);
    match (errno, limit) {
        (Errno::NOMEM | Errno::PERM, Some(limit)) if needed > limit => DmaError::Locked { limit, needed },
        // Groups count for this process, iommufd for all processes of its user.
        (Errno::NOMEM, Some(limit)) => {
            let reason = format!(
                "other machines of this user may have locked the rest of the {} that it may lock (RLIMIT_MEMLOCK), \
                 or the host is out of memory, or its table of mappings is full",
                Size(limit)
            );
            refused(span, &reason)
        }
        (Errno::NOMEM, None) => refused(span, "the host is out of memory, or its table of mappings is full"),
        (Errno::FAULT, _) => refused(span, "it is no memory that devices can reach"),
        (Errno::EXIST, _) => DmaError::Taken(span),
        (errno, _) => refused(span, &errno.to_string()),
    }
}

fn refused(span: Span<Gpa>, reason: &str) -> DmaError {
    DmaError::Refused { what: "map", span, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(first: u64, last: u64) -> Span<Gpa> {
        Span::new(Gpa(first), Gpa(last)).unwrap()
    }

    #[test]
    fn message_addresses_are_passed_over() {
        let all = [span(0, u64::MAX)];
        let seen = calls(span(0xfe00_0000, 0x1_0fff_ffff), &all).unwrap();
        assert_eq!(
            seen,
            [
                span(0xfe00_0000, 0xfedf_ffff),
                span(0xfef0_0000, 0xffff_ffff),
                span(0x1_0000_0000, 0x1_0fff_ffff)
            ]
        );
        // As x86 tells it: the addresses are missing.
        let x86 = [span(0, 0xfedf_ffff), span(0xfef0_0000, 0x7f_ffff_ffff)];
        assert_eq!(calls(span(0xfe00_0000, 0x1_0fff_ffff), &x86).unwrap(), seen);
        assert_eq!(calls(span(0xfee0_0000, 0xfeef_ffff), &x86).unwrap(), []);
    }

    #[test]
    fn what_is_out_of_reach_is_said() {
        let x86 = [span(0, 0xfedf_ffff), span(0xfef0_0000, 0x7f_ffff_ffff)];
        let error = calls(span(0x1_0000_0000, 0x80_0000_0fff), &x86).unwrap_err();
        assert_eq!(
            error.to_string(),
            "guest memory at 0x100000000-0x8000000fff is out of the reach of the host's IOMMU, which covers \
             0x0-0xfedfffff, 0xfef00000-0x7fffffffff: give the guest less memory"
        );
        assert!(calls(span(0, 0xfff), &[]).unwrap_err().to_string().contains("covers nothing"));
    }

    #[test]
    fn a_limit_is_explained() {
        let gib = span(0, (1 << 30) - 1);
        let text = explain(Errno::NOMEM, gib, 1 << 30, Some(8 << 20)).to_string();
        assert_eq!(
            text,
            "the kernel may lock 8 MiB for this process (RLIMIT_MEMLOCK), and DMA needs 2 GiB of guest memory \
             locked: raise the limit (ulimit -l, LimitMEMLOCK= of a systemd unit) or run as root"
        );
        let others = "other machines of this user may have locked the rest of the 4 GiB";
        let full = "the host is out of memory, or its table of mappings is full";
        for (errno, locked, limit, words, is_for_others) in [
            (Errno::NOMEM, 0, None, full, false),
            (Errno::NOMEM, 8 << 30, None, full, false),
            (Errno::NOMEM, 0, Some(4 << 30), others, true),
            (Errno::NOMEM, 3 << 30, Some(4 << 30), others, true),
            (Errno::NOMEM, 4 << 30, Some(4 << 30), "for this process (RLIMIT_MEMLOCK)", false),
            (Errno::PERM, 4 << 30, Some(4 << 30), "for this process (RLIMIT_MEMLOCK)", false),
            (Errno::FAULT, 0, Some(4 << 30), "no memory that devices can reach", false),
        ] {
            let text = explain(errno, gib, locked, limit).to_string();
            assert!(text.contains(words), "{text}");
            assert_eq!(text.contains("other machines"), is_for_others, "{text}");
        }
        assert!(matches!(explain(Errno::EXIST, gib, 0, None), DmaError::Taken(_)));
    }

    #[test]
    fn who_may_lock_all_is_not_told_of_a_limit() {
        // More than any limit but none.
        let text = refusal(Errno::NOMEM, span(0, (1 << 62) - 1), 0, true).to_string();
        assert!(!text.contains("RLIMIT_MEMLOCK") && text.contains("out of memory"), "{text}");
        // The kernel tells the same in a text.
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        let bits = u64::from_str_radix(bits.trim(), 16).unwrap();
        assert_eq!(locks_all(), bits >> 14 & 1 == 1);
    }

    proptest! {
        /// Against a model: pages are mapped exactly if they are asked for and no message addresses.
        #[test]
        fn calls_cover_what_was_asked(
            first in prop_oneof![0u64..0x2000, 0xf_ee00u64 - 300..0xf_eeff + 300, 0u64..1 << 30],
            pages in prop_oneof![1u64..0x400, 1u64..0x20_0000],
            probes in proptest::collection::vec(0u64..1 << 31, 50),
        ) {
            let wanted = span(first * PAGE, (first + pages) * PAGE - 1);
            let seen = calls(wanted, &[span(0, u64::MAX)]).unwrap();
            for pair in seen.windows(2) {
                prop_assert!(pair[0].last() < pair[1].first());
            }
            for call in &seen {
                prop_assert!(call.first().0 % PAGE == 0 && (call.last().0 + 1) % PAGE == 0);
                prop_assert!(call.extent() < PIECE);
                prop_assert_eq!(call.first().0 / PIECE, call.last().0 / PIECE);
            }
            for probe in probes {
                let at = Gpa(wanted.first().0 + probe % (wanted.extent() + 1));
                let mapped = seen.iter().any(|call| call.contains(at));
                prop_assert_eq!(mapped, !MESSAGES.contains(&at.0));
            }
        }

        #[test]
        fn reach_is_as_counted(
            ranges in proptest::collection::vec((0u64..40, 1u64..20), 0..6),
            first in 0u64..100,
            len in 1u64..40,
        ) {
            let mut next = 0;
            let ranges: Vec<_> = ranges.into_iter().map(|(gap, len)| {
                let range = span(next + gap, next + gap + len - 1);
                next = range.last().0 + 1;
                range
            }).collect();
            let part = span(first, first + len - 1);
            let naive = (first..first + len).all(|at| ranges.iter().any(|range| range.contains(Gpa(at))));
            prop_assert_eq!(covered(part, &ranges), naive);
        }
    }
}
