//! The ACPI tables as the reference compiler of ACPICA reads them.

use std::path::Path;
use std::process::Command;

use trapline::firmware::acpi::{self, Platform, Windows};
use trapline::firmware::e820::RamSplit;
use trapline_io::{Gpa, Span};

/// Cuts the tables out of the blob: the FACS first, then tables at multiples of 8, then zeros.
fn tables(blob: &[u8]) -> Vec<(String, &[u8])> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + 8 <= blob.len() && blob[at..at + 4] != [0; 4] {
        let len = u32::from_le_bytes(blob[at + 4..at + 8].try_into().unwrap()) as usize;
        let name = String::from_utf8(blob[at..at + 4].to_vec()).unwrap();
        found.push((name, &blob[at..at + len]));
        at = (at + len).next_multiple_of(8);
    }
    found
}

/// Runs iasl in `folder`; `None` if it is not installed.
fn iasl(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = match Command::new("iasl").args(arguments).current_dir(folder).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("iasl: {error}"),
    };
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "iasl {arguments:?}: {text}");
    Some(text)
}

#[test]
fn iasl_reads_every_table_and_compiles_the_dsdt_again() {
    let folder = tempfile::tempdir().unwrap();
    let built = acpi::build(&Platform {
        cpus: 4,
        ram: RamSplit::of(1 << 30),
        windows: Windows { high: Span::of_len(Gpa(0x38_0000_0000), 256 << 30), ..Windows::default() },
        keyboard: true,
        serial: true,
    });
    let tables = tables(&built.tables);
    let names: Vec<&str> = tables.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["FACS", "FACP", "APIC", "MCFG", "WAET", "RSDT", "XSDT", "DSDT"]);
    for (name, bytes) in &tables {
        let file = format!("{name}.aml");
        std::fs::write(folder.path().join(&file), bytes).unwrap();
        let Some(text) = iasl(folder.path(), &["-d", &file]) else {
            eprintln!("skipped: iasl is not installed (package acpica-tools)");
            return;
        };
        // Tables with pointers get their checksums from the firmware.
        let bad = text.contains("Incorrect checksum") || text.contains("invalid checksum");
        assert!(!bad || ["FACP", "RSDT", "XSDT"].contains(&name.as_str()), "{name}: {text}");
    }
    let text = iasl(folder.path(), &["DSDT.dsl"]).expect("it ran just before");
    assert!(text.contains(" 0 Errors,"), "{text}");
    let source = std::fs::read_to_string(folder.path().join("DSDT.dsl")).unwrap();
    for wanted in ["_OSC", "LNKH", "QWordMemory", "PNP0303", "PNP0501", "QEMU0002", "C003"] {
        assert!(source.contains(wanted), "the DSDT has no {wanted}:\n{source}");
    }
}
