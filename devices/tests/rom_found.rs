//! Files that the fuzz target `rom` has found, one for each thing that is told of a ROM: what is told of them, and what
//! becomes of them, is what stands in `rom_found/told.txt`.
//!
//! `rom_found/files.txt` has them in hexadecimal digits, `00*12` for twelve times the same byte, with an empty line
//! between two.

use std::fmt::Write;

use trapline_devices::rom::check::{About, Firmware, check};
use trapline_devices::rom::fix::{Wish, fix};

fn bytes(text: &str) -> Vec<u8> {
    let byte = |digits: &str| u8::from_str_radix(digits, 16).unwrap();
    let word = |word: &str| match word.split_once('*') {
        Some((digits, times)) => vec![byte(digits); times.parse().unwrap()],
        None => (0..word.len()).step_by(2).map(|at| byte(&word[at..at + 2])).collect(),
    };
    text.split_whitespace().flat_map(word).collect()
}

/// What is told of a file.
fn told(file: &[u8]) -> String {
    let report = check(file, About::default());
    let mut text = format!("{} bytes, {} images\n", file.len(), report.parts.len());
    for (name, firmware) in [("BIOS", Firmware::Bios), ("UEFI", Firmware::Uefi)] {
        let verdict = report.verdict(firmware);
        let _ = writeln!(text, "{name}: {}", verdict.map_or_else(|why| why, |at| format!("runs {at:#x}")));
    }
    for remark in &report.remarks {
        let _ = writeln!(text, "{:?}: {}", remark.severity, remark.text);
    }
    match fix(file, &Wish::default()) {
        Err(error) => text += &format!("no ROM: {error}\n"),
        Ok(fixed) => {
            text += &format!("a ROM of {} bytes\n", fixed.rom.len());
            fixed.done.iter().for_each(|done| text += &format!("{done}\n"));
            assert_eq!(fix(&fixed.rom, &Wish::default()).map(|again| again.rom), Ok(fixed.rom));
        }
    }
    text
}

#[test]
fn what_is_told_stays_as_it_is() {
    let files = include_str!("rom_found/files.txt").split("\n\n");
    let found: Vec<String> = files.map(|file| told(&bytes(file))).collect();
    let found = found.join("\n");
    assert_eq!(found, include_str!("rom_found/told.txt"), "{found}");
}
