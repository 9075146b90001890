//! What is printed of hosts that the tests build.

use super::*;
use crate::host::fake::Fake;

const CARD: &str = "0000:01:00.0";

fn fake() -> Fake {
    let fake = Fake::new();
    fake.write(
        "usr/share/misc/pci.ids",
        "10de  NVIDIA Corporation\n\t1b80  GP104 [GeForce GTX 1080 with a name that is far too long for the table of this program]\n",
    );
    fake.function("0000:00:01.0", "8086:1901", 0x06_0400, Some("pcieport"), Some(13));
    fake.function("0000:00:02.0", "8086:10d3", 0x02_0000, Some("e1000e"), Some(2));
    fake.function(CARD, "10de:1b80", 0x03_0000, Some("nouveau"), Some(13));
    fake.function("0000:01:00.1", "10de:10f0", 0x04_0300, Some("snd_hda_intel"), Some(13));
    fake.set(CARD, "boot_vga", "1\n");
    let lines = [
        "0xf6000000 0xf6ffffff 0x40200",
        "0xe0000000 0xefffffff 0x14220c",
        "0x0 0x0 0x0",
        "0x0 0x0 0x0",
        "0x0 0x0 0x0",
    ];
    fake.set(
        CARD,
        "resource",
        &format!("{}\n0xe000 0xe07f 0x40101\n0xc0000 0xdffff 0x212\n", lines.join("\n")),
    );
    for (name, text) in [
        ("current_link_speed", "2.5 GT/s PCIe"),
        ("current_link_width", "16"),
        ("max_link_speed", "8.0 GT/s PCIe"),
        ("max_link_width", "16"),
        ("subsystem_vendor", "0x1462"),
        ("subsystem_device", "0x3362"),
        ("unique_id", "SECRET-SERIAL"),
    ] {
        fake.set(CARD, name, text);
    }
    fake
}

fn arguments(addresses: &[&str], all: bool) -> Arguments {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Arguments { addresses, all, json: false }
}

fn page(fake: &Fake, arguments: &Arguments) -> String {
    let host = Host::read(fake.tree().clone());
    let chosen = choose(&host, arguments).unwrap();
    let text = page::text(&host, &chosen, 2 << 30, !arguments.all);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert!(!text.contains('\u{1b}') && !text.contains("SECRET"), "{text}");
    text
}

#[test]
fn an_adapter_is_told_in_a_table_and_a_paragraph() {
    let fake = fake();
    fake.write("dev/kvm", "");
    fake.write("dev/vfio/vfio", "");
    fake.write("proc/interrupts", " 25:  0  IR-PCI-MSI  eth0\n");
    let text = page(&fake, &arguments(&[], false));
    let expected = "\
ADDRESS       DRIVER   GROUP  VGA   READY  NAME
0000:01:00.0  nouveau     13  boot  no     NVIDIA Corporation GP104 [GeForce GTX 1080 with a name...

0000:01:00.0  NVIDIA Corporation GP104 [GeForce GTX 1080 with a name that is far too long for t...
    id          10de:1b80 (subsystem 1462:3362), VGA compatible controller, the host's boot adapter
    driver      nouveau
    group       13, with 0000:00:01.0 (PCI bridge, pcieport), 0000:01:00.1 (Audio device,
                snd_hda_intel)
    BARs        0: 16 MiB; 1: 256 MiB, 64-bit, prefetchable; 5: 128 bytes of ports
    ROM         128 KiB, a shadow of what it was
    legacy VGA  not known until vfio-pci is loaded (trapline bind loads it)
    reset       flr, bus
    link        2.5 GT/s PCIe x16, at most 8.0 GT/s PCIe x16
    power       D0
    ! stops     driver nouveau has it: trapline bind 0000:01:00.0 gives it to vfio-pci (and takes
                0000:01:00.1 (snd_hda_intel) of group 13 along)
    ! limits    its ROM is the copy that the host's firmware has already run, and the guest's BIOS
                stays dark on it: give rom=FILE with an untouched image (read it while another
                adapter is the boot adapter)
";
    assert_eq!(text, expected);
}

#[test]
fn all_functions_but_bridges_are_listed_with_adapters_first() {
    let text = page(&fake(), &arguments(&[], true));
    let addresses: Vec<&str> =
        text.lines().filter(|line| line.starts_with("0000")).map(|line| &line[..12]).collect();
    assert_eq!(addresses, [CARD, "0000:00:02.0", "0000:01:00.1"]);
    assert!(text.contains("this host\n    ! stops     there is no /dev/kvm"), "{text}");
}

#[test]
fn what_is_given_away_is_listed_with_the_adapters() {
    let fake = fake();
    fake.function("0000:00:02.0", "8086:10d3", 0x02_0000, Some("vfio-pci"), Some(2));
    for node in ["dev/kvm", "dev/vfio/vfio", "dev/vfio/2"] {
        fake.write(node, "");
    }
    let text = page(&fake, &arguments(&[], false));
    assert!(
        text.contains("-     no     Ethernet controller 8086:10d3\n"),
        "interrupts are not remapped: {text}"
    );
    fake.write("proc/interrupts", " 25:  0  IR-PCI-MSI  eth0\n");
    let text = page(&fake, &arguments(&[], false));
    assert!(
        text.contains("\n0000:00:02.0  vfio-pci      2  -     yes    Ethernet controller 8086:10d3\n"),
        "{text}"
    );
}

#[test]
fn a_host_without_adapters_says_so() {
    assert!(page(&Fake::new(), &arguments(&[], false)).starts_with("This host has no display adapter"));
    let host = Host::read(Fake::new().tree().clone());
    let error = choose(&host, &arguments(&["07:00.0"], false)).unwrap_err().to_string();
    assert!(error.contains("0000:07:00.0") && error.contains("--all"), "{error}");
}

#[test]
fn the_names_in_json_stay() {
    let fake = fake();
    let host = Host::read(fake.tree().clone());
    let chosen = choose(&host, &arguments(&[CARD], false)).unwrap();
    let text = report::json(&host, &chosen, 2 << 30).unwrap();
    assert!(!text.contains("SECRET"));
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let device = &document["devices"][0];
    let names: Vec<&str> = device.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [
        "address",
        "vendor",
        "device",
        "subsystem_vendor",
        "subsystem_device",
        "class",
        "name",
        "class_name",
        "driver",
        "driver_override",
        "iommu_group",
        "companions",
        "bars",
        "rom",
        "legacy_vga",
        "boot_vga",
        "reset_methods",
        "power_state",
        "numa_node",
        "link",
        "virtual_functions",
        "obstacles",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
    for (name, value) in [
        ("address", serde_json::json!(CARD)),
        ("vendor", "10de".into()),
        ("class", "030000".into()),
        ("driver", "nouveau".into()),
        ("driver_override", serde_json::Value::Null),
        ("iommu_group", 13.into()),
        ("rom", serde_json::json!({ "size": 0x2_0000, "shadow": true })),
        ("legacy_vga", "unknown".into()),
        ("reset_methods", serde_json::json!(["flr", "bus"])),
        ("numa_node", serde_json::Value::Null),
    ] {
        assert_eq!(device[name], value, "{name}");
    }
    let bar = serde_json::json!({ "index": 5, "kind": "io", "prefetchable": false, "address": 0xe000, "size": 128 });
    assert_eq!(device["bars"][2], bar);
    assert_eq!(device["companions"][1]["holds_group"], true);
    assert_eq!(document["obstacles"][0]["code"], "kvm");
}
