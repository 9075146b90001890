//! Fuzz targets of the access path, and what they share.
//!
//! ```text
//! cd io && cargo +nightly fuzz run space -- -max_total_time=60
//! ```
//!
//! (`cargo install cargo-fuzz` once; `RUSTC_BOOTSTRAP=1 cargo fuzz ...` makes do with the stable compiler.)
//! Without cargo-fuzz, in this directory, with libFuzzer but no sanitizer:
//!
//! ```text
//! RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
//!     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
//!     -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing" \
//!     cargo +nightly build --release --target x86_64-unknown-linux-gnu
//! ```
//!
//! The body of a target is a plain function over bytes, here; the target only hands it what the fuzzer made. So
//! `tests/fuzz.rs` carries out the same bodies on the stable compiler, and no body goes stale: see [`driver`].
//!
//! * `space`: tables of any claims against a plain search through the same claims.
//! * `collected`: what a guest writes by way of the ring, posted and strict against the plain list of it.

pub mod collected;
pub mod driver;
pub mod space;

use arbitrary::{Arbitrary, Result, Unstructured};
use trapline_io::device::{Claim, Range, Retire, Target};
use trapline_io::{Address, Gpa, Op, Port, Region, Span, Trap, Width};

/// One of the four widths.
///
/// # Errors
/// The input is at its end.
pub fn width(u: &mut Unstructured<'_>) -> Result<Width> {
    u.choose(&[Width::B1, Width::B2, Width::B4, Width::B8]).copied()
}

/// An address, mostly one of few, so that ranges meet; also at the very end of the space.
///
/// # Errors
/// The input is at its end.
pub fn gpa(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match u.int_in_range(0..=3)? {
        0 => u64::from(u8::arbitrary(u)?),
        1 => u64::MAX - u64::from(u8::arbitrary(u)?),
        2 => 0xb000_0000 + u64::from(u16::arbitrary(u)?),
        _ => u64::arbitrary(u)?,
    })
}

/// A port, mostly near the configuration ports or an end.
///
/// # Errors
/// The input is at its end.
pub fn port(u: &mut Unstructured<'_>) -> Result<u16> {
    Ok(match u.int_in_range(0..=3)? {
        0 => 0xcf0 + u16::from(u8::arbitrary(u)? & 0x1f),
        1 => u16::MAX - u16::from(u8::arbitrary(u)? & 0x1f),
        2 => u16::from(u8::arbitrary(u)? & 0x1f),
        _ => u16::arbitrary(u)?,
    })
}

/// Any range that is one.
///
/// # Errors
/// The input is at its end.
pub fn range(u: &mut Unstructured<'_>) -> Result<Range> {
    Ok(if bool::arbitrary(u)? {
        let (a, b) = (port(u)?, port(u)?);
        let span = Span::new(Port(a.min(b)), Port(a.max(b)));
        Range::Ports(span.ok_or(arbitrary::Error::IncorrectFormat)?)
    } else {
        let (a, b) = (gpa(u)?, gpa(u)?);
        let span = Span::new(Gpa(a.min(b)), Gpa(a.max(b)));
        Range::Memory(span.ok_or(arbitrary::Error::IncorrectFormat)?)
    })
}

/// A claim of any range on any target.
///
/// # Errors
/// The input is at its end.
pub fn claim(u: &mut Unstructured<'_>) -> Result<Claim> {
    let range = range(u)?;
    let target = match u.int_in_range(0..=5)? {
        0 => Target::ConfigAddress,
        1 => Target::ConfigData,
        2 => Target::Ecam,
        _ => {
            let retire = *u.choose(&[Retire::Strict, Retire::Posted, Retire::Topology])?;
            let offset = if bool::arbitrary(u)? { 0 } else { u64::arbitrary(u)? };
            Target::Region { region: Region(u8::arbitrary(u)?), offset, retire }
        }
    };
    Ok(Claim::of(range, target))
}

/// Any access of a guest.
///
/// # Errors
/// The input is at its end.
pub fn trap(u: &mut Unstructured<'_>) -> Result<Trap> {
    let at = if bool::arbitrary(u)? { Address::Port(Port(port(u)?)) } else { Address::Gpa(Gpa(gpa(u)?)) };
    let width = width(u)?;
    let op = if bool::arbitrary(u)? { Op::Read } else { Op::Write(u64::arbitrary(u)? & width.all_ones()) };
    Ok(Trap { at, width, op })
}
