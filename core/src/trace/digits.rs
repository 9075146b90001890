//! Numbers as text, appended to a buffer. A trace is mostly numbers, and this takes a fifth of the time
//! that `core::fmt` takes.

/// Appends `0x` and the hexadecimal digits of `number`.
pub(super) fn hex(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(b"0x");
    hex_digits(out, number, 1);
}

/// Appends hexadecimal digits, at least `least` of them.
pub(super) fn hex_digits(out: &mut Vec<u8>, number: u64, least: u32) {
    let digits = (64 - number.leading_zeros()).div_ceil(4).max(least);
    for place in (0..digits).rev() {
        let nibble = (number.checked_shr(4 * place).unwrap_or(0) & 0xf) as u8;
        out.push(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    }
}

/// Appends decimal digits.
pub(super) fn decimal(out: &mut Vec<u8>, number: u64) {
    padded(out, number, 1);
}

/// Appends decimal digits, at least `least` of them and at most 20.
fn padded(out: &mut Vec<u8>, number: u64, least: usize) {
    let mut digits = [b'0'; 20];
    let mut rest = number;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        if rest == 0 && used >= least {
            break;
        }
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        used += 1;
    }
    out.extend(digits.iter().skip(digits.len() - used));
}

/// Appends nanoseconds as seconds with six decimals, cut.
pub(super) fn seconds(out: &mut Vec<u8>, nanoseconds: u64) {
    decimal(out, nanoseconds / 1_000_000_000);
    out.push(b'.');
    padded(out, nanoseconds % 1_000_000_000 / 1000, 6);
}

/// Appends nanoseconds as microseconds with three decimals.
pub(super) fn microseconds(out: &mut Vec<u8>, nanoseconds: u64) {
    decimal(out, nanoseconds / 1000);
    out.push(b'.');
    padded(out, nanoseconds % 1000, 3);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(append: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        append(&mut out);
        String::from_utf8(out).unwrap()
    }

    proptest::proptest! {
        #[test]
        fn numbers_are_written_as_the_library_writes_them(number: u64, shift in 0..64_u32) {
            let number = number >> shift;
            proptest::prop_assert_eq!(text(|out| hex(out, number)), format!("{number:#x}"));
            proptest::prop_assert_eq!(text(|out| decimal(out, number)), number.to_string());
            proptest::prop_assert_eq!(text(|out| hex_digits(out, number, 4)), format!("{number:04x}"));
            let (whole, part) = (number / 1_000_000_000, number % 1_000_000_000 / 1000);
            proptest::prop_assert_eq!(text(|out| seconds(out, number)), format!("{whole}.{part:06}"));
            let (whole, part) = (number / 1000, number % 1000);
            proptest::prop_assert_eq!(text(|out| microseconds(out, number)), format!("{whole}.{part:03}"));
        }
    }

    #[test]
    fn zero_has_a_digit() {
        assert_eq!(text(|out| hex(out, 0)), "0x0");
        assert_eq!(text(|out| decimal(out, 0)), "0");
        assert_eq!(text(|out| seconds(out, 0)), "0.000000");
    }
}
