//! The firmware's stages in the lines of its debug console.

use std::time::Duration;

use anyhow::{Context, Result};

use super::boot::Boot;

/// A stage's name, and the text in the line that ends it.
const STAGES: [(&str, &str); 4] = [
    ("set-up of the machine", "Scan for VGA option rom"),
    ("VGA BIOS", "Turning on vga text mode console"),
    ("banner, devices, disks", "Booting from"),
    ("boot sector read and started", ""),
];

/// How much of a boot each stage takes; together 1.
pub type Shares = Vec<(&'static str, f64)>;

/// The shares of a boot whose console was watched.
pub fn shares(boot: &Boot) -> Result<Shares> {
    let mut ends = Vec::new();
    for (stage, text) in STAGES {
        let end = if text.is_empty() { Some(boot.mark) } else { boot.line(text) };
        ends.push((stage, end.with_context(|| format!("the firmware did not say {text:?}"))?));
    }
    Ok(cut(boot.begin, &ends))
}

fn cut(begin: Duration, ends: &[(&'static str, Duration)]) -> Shares {
    let whole = ends.last().map_or(Duration::ZERO, |(_, end)| end.saturating_sub(begin)).as_secs_f64();
    let mut from = begin;
    let mut shares = Vec::new();
    for (stage, end) in ends {
        shares.push((*stage, end.saturating_sub(from).as_secs_f64() / whole.max(f64::MIN_POSITIVE)));
        from = *end;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        let at = Duration::from_millis;
        let shares = cut(at(100), &[("a", at(200)), ("b", at(250)), ("c", at(500))]);
        assert_eq!(shares, [("a", 0.25), ("b", 0.125), ("c", 0.625)]);
    }
}
