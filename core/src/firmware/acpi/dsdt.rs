//! The DSDT: the PCI root with its windows and interrupt routing, the ISA devices, the processors.

use acpi_tables::Aml;
use acpi_tables::aml::{AddressSpace, AddressSpaceCacheable, And};
use acpi_tables::aml::{
    Arg, CreateDWordField, Device, EISAName, Else, Equal, Field, FieldAccessType, FieldEntry, FieldLockRule,
    FieldUpdateRule, IO, If, Local, Memory32Fixed, Method, Name, NotEqual, ONE, OpRegion, OpRegionSpace, Or,
    Package, PackageBuilder, Path, ResourceTemplate, Return, Scope, Store, Uuid, ZERO,
};
use acpi_tables::{AmlSink, sdt::Sdt};
use trapline_devices::pci::Pin;
use trapline_devices::q35::{LOW_RAM_LIMIT, Pirqs};
use trapline_io::{Gpa, Span};

use super::{ECAM, ECAM_LEN, Platform, Windows, table as new_table};

/// The DSDT of `platform`.
pub(super) fn table(platform: &Platform) -> Sdt {
    let mut body = Vec::new();
    interrupt_mode(&mut body);
    let mut bus = Vec::new();
    root_bridge(&mut bus, platform);
    interrupt_links(&mut bus);
    motherboard(&mut bus);
    processors(&mut bus, platform.cpus);
    Scope::new("_SB_".into(), vec![&Raw(bus)]).to_aml_bytes(&mut body);
    // Sleep type 0 in PM1a_CNT turns the machine off.
    Name::new("_S5_".into(), &Package::new(vec![&ZERO, &ZERO, &ZERO, &ZERO])).to_aml_bytes(&mut body);
    let mut dsdt = new_table(*b"DSDT", 2);
    dsdt.append_slice(&body);
    dsdt
}

/// The length of the longest DSDT that `platform` can have, whatever its windows.
pub(super) fn longest(platform: &Platform) -> usize {
    let high = Span::of_len(Gpa(1 << 32), 1 << 32);
    let widest = Windows { low: (0xc000_0000, 0xfebf_ffff), high };
    table(&Platform { windows: widest, ..*platform }).len()
}

/// AML that is encoded already.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// The edge triggered, active high interrupt of an ISA device (ACPI 6.5 section 6.4.2.1).
struct IsaIrq(u8);

impl Aml for IsaIrq {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.byte(0x22);
        sink.word(1 << self.0);
    }
}

/// Level triggered, active high, shared interrupts, one of which is chosen (section 6.4.3.6).
struct SharedIrq(&'static [u32]);

/// Where the number of the first interrupt lies in a buffer that holds only a [`SharedIrq`].
const IRQ_NUMBER: u8 = 5;

impl Aml for SharedIrq {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let count = u8::try_from(self.0.len()).expect("a few interrupts");
        sink.byte(0x89);
        sink.word(2 + 4 * u16::from(count));
        sink.byte(0b0000_1001);
        sink.byte(count);
        self.0.iter().for_each(|irq| sink.dword(*irq));
    }
}

fn hid(name: &str) -> Name {
    Name::new("_HID".into(), &EISAName::new(name))
}

fn uid(number: u8) -> Name {
    Name::new("_UID".into(), &number)
}

fn resources(children: Vec<&dyn Aml>) -> Name {
    Name::new("_CRS".into(), &ResourceTemplate::new(children))
}

fn port(first: u16, len: u8) -> IO {
    IO::new(first, first, 1, len)
}

/// `_PIC`: the operating system says whether it uses the 8259 (0) or the I/O APIC (1).
fn interrupt_mode(sink: &mut dyn AmlSink) {
    Name::new("PICF".into(), &ZERO).to_aml_bytes(sink);
    let mode = Path::new("PICF");
    let keep = Store::new(&mode, &Arg(0));
    Method::new("_PIC".into(), 1, false, vec![&keep]).to_aml_bytes(sink);
}

fn root_bridge(sink: &mut dyn AmlSink, platform: &Platform) {
    Device::new(
        "PCI0".into(),
        vec![
            &hid("PNP0A08"),
            &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
            &uid(0),
            &root_resources(platform),
            &operating_system_control(),
            &routing("PRTA", |pirq| Box::new(Pirqs::gsi(pirq)), true),
            &routing("PRTP", |pirq| Box::new(Path::new(link_name(pirq))), false),
            &routing_by_mode(),
            &isa_bridge(platform),
        ],
    )
    .to_aml_bytes(sink);
}

/// `_CRS` of the root: buses, ports and the windows in which its functions lie.
fn root_resources(platform: &Platform) -> Raw {
    let memory = |cacheable, first: u32, last: u32| {
        (first < last).then(|| AddressSpace::new_memory(cacheable, true, first, last, None))
    };
    let plain = AddressSpaceCacheable::NotCacheable;
    let hole = u32::try_from(platform.ram.low.min(LOW_RAM_LIMIT)).unwrap_or(ECAM);
    let (low_first, low_last) = platform.windows.low;
    let windows = [
        memory(AddressSpaceCacheable::Cacheable, 0xa_0000, 0xb_ffff),
        memory(plain, hole, ECAM - 1),
        memory(plain, low_first, low_last),
    ];
    let high = platform.windows.high.filter(|span| span.extent() < u64::MAX).map(|span| {
        let cacheable = AddressSpaceCacheable::Cacheable;
        AddressSpace::new_memory(cacheable, true, span.first().0, span.last().0, None)
    });
    // What RAM leaves free among itself is a window of its own, which holds no RAM.
    let gap = platform.ram.gap.map(|span| {
        let cacheable = AddressSpaceCacheable::Cacheable;
        AddressSpace::new_memory(cacheable, true, span.first().0, span.last().0, None)
    });
    let buses = AddressSpace::new_bus_number(0u16, 0xff);
    let config = IO::new(0xcf8, 0xcf8, 1, 8);
    let ports_below = AddressSpace::new_io(0u16, 0xcf7, None);
    let ports_above = AddressSpace::new_io(0xd00u16, 0xffff, None);
    let mut children: Vec<&dyn Aml> = vec![&buses, &config, &ports_below, &ports_above];
    children.extend(windows.iter().flatten().map(|window| window as &dyn Aml));
    children.extend(gap.iter().chain(&high).map(|window| window as &dyn Aml));
    encoded(&resources(children))
}

fn encoded(aml: &dyn Aml) -> Raw {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    Raw(bytes)
}

/// `_OSC` (PCI Firmware 3.3 section 4.5): all five PCI Express features are the operating system's.
fn operating_system_control() -> Raw {
    let status = Path::new("CDW1");
    let control = Path::new("CDW3");
    let granted = And::new(&Local(0), &control, &0x1fu8);
    let unknown_revision = Or::new(&status, &status, &0x08u8);
    let masked = Or::new(&status, &status, &0x10u8);
    let unknown_uuid = Or::new(&status, &status, &0x04u8);
    let (first, third) =
        (CreateDWordField::new(&status, &Arg(3), &0u8), CreateDWordField::new(&control, &Arg(3), &8u8));
    let known = Uuid::new("33DB4D5B-1FF7-401C-9657-7441C03DD766");
    encoded(&Method::new(
        "_OSC".into(),
        4,
        true,
        vec![
            &first,
            &If::new(
                &Equal::new(&Arg(0), &known),
                vec![
                    &third,
                    &granted,
                    &If::new(&NotEqual::new(&Arg(1), &ONE), vec![&unknown_revision]),
                    &If::new(&NotEqual::new(&control, &Local(0)), vec![&masked]),
                    &Store::new(&control, &Local(0)),
                ],
            ),
            &Else::new(vec![&unknown_uuid]),
            &Return::new(&Arg(3)),
        ],
    ))
}

fn link_name(pirq: u8) -> &'static str {
    ["LNKA", "LNKB", "LNKC", "LNKD", "LNKE", "LNKF", "LNKG", "LNKH"][usize::from(pirq & 7)]
}

/// A routing package: `target` is a global interrupt, or a link device by its name.
fn routing(name: &'static str, target: impl Fn(u8) -> Box<dyn Aml>, global: bool) -> Raw {
    let mut table = PackageBuilder::new();
    for slot in 0..32u8 {
        for pin in 0..4u8 {
            let address = u32::from(slot) << 16 | 0xffff;
            let target = target(Pirqs::at_power_on(slot, Pin::of(pin)));
            let (source, index): (&dyn Aml, &dyn Aml) =
                if global { (&ZERO, &*target) } else { (&*target, &ZERO) };
            table.add_element(&Package::new(vec![&address, &pin, source, index]));
        }
    }
    encoded(&Name::new(name.into(), &table))
}

fn routing_by_mode() -> Raw {
    let (mode, apic, pic) = (Path::new("\\PICF"), Path::new("PRTA"), Path::new("PRTP"));
    let with_apic = Return::new(&apic);
    let with_pic = Return::new(&pic);
    encoded(&Method::new(
        "_PRT".into(),
        0,
        false,
        vec![&If::new(&mode, vec![&with_apic]), &Else::new(vec![&with_pic])],
    ))
}

/// The LPC bridge with its route registers and the ISA devices behind it.
fn isa_bridge(platform: &Platform) -> Raw {
    let region = OpRegion::new("PIRQ".into(), OpRegionSpace::PCIConfig, &0x60u8, &0x0cu8);
    let registers = Field::new(
        "PIRQ".into(),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::Preserve,
        vec![
            FieldEntry::Named(*b"PRQA", 8),
            FieldEntry::Named(*b"PRQB", 8),
            FieldEntry::Named(*b"PRQC", 8),
            FieldEntry::Named(*b"PRQD", 8),
            FieldEntry::Reserved(32),
            FieldEntry::Named(*b"PRQE", 8),
            FieldEntry::Named(*b"PRQF", 8),
            FieldEntry::Named(*b"PRQG", 8),
            FieldEntry::Named(*b"PRQH", 8),
        ],
    );
    let mut children = Vec::new();
    region.to_aml_bytes(&mut children);
    registers.to_aml_bytes(&mut children);
    isa_device("RTC_", "PNP0B00", vec![&port(0x70, 2), &IsaIrq(8)]).to_aml_bytes(&mut children);
    if platform.keyboard {
        isa_device("KBD_", "PNP0303", vec![&port(0x60, 1), &port(0x64, 1), &IsaIrq(1)])
            .to_aml_bytes(&mut children);
    }
    if platform.serial {
        isa_device("COM1", "PNP0501", vec![&port(0x3f8, 8), &IsaIrq(4)]).to_aml_bytes(&mut children);
    }
    let address = Name::new("_ADR".into(), &0x1f_0000u32);
    encoded(&Device::new("ISA_".into(), vec![&address, &Raw(children)]))
}

fn isa_device(name: &'static str, id: &str, resource: Vec<&dyn Aml>) -> Raw {
    encoded(&Device::new(name.into(), vec![&hid(id), &resources(resource)]))
}

/// The link devices: for each PIRQ the 8259 interrupt that its route register names.
fn interrupt_links(sink: &mut dyn AmlSink) {
    for pirq in 0..8u8 {
        let register = ["PRQA", "PRQB", "PRQC", "PRQD", "PRQE", "PRQF", "PRQG", "PRQH"][usize::from(pirq)];
        interrupt_link(sink, pirq, &Path::new(&format!("\\_SB_.PCI0.ISA_.{register}")));
    }
}

fn interrupt_link(sink: &mut dyn AmlSink, pirq: u8, register: &Path) {
    let (current, number) = (Path::new("BUFF"), Path::new("IRQN"));
    let off = And::new(&Local(0), register, &0x80u8);
    let set = And::new(&number, register, &0x0fu8);
    Device::new(
        link_name(pirq).into(),
        vec![
            &hid("PNP0C0F"),
            &uid(pirq),
            &Name::new("_PRS".into(), &ResourceTemplate::new(vec![&SharedIrq(&[5, 10, 11])])),
            &Name::new("BUFF".into(), &ResourceTemplate::new(vec![&SharedIrq(&[0])])),
            &Method::new(
                "_STA".into(),
                0,
                false,
                vec![&off, &If::new(&Local(0), vec![&Return::new(&0x09u8)]), &Return::new(&0x0bu8)],
            ),
            &Method::new("_DIS".into(), 0, false, vec![&Or::new(register, register, &0x80u8)]),
            &Method::new(
                "_CRS".into(),
                0,
                true,
                vec![&CreateDWordField::new(&number, &current, &IRQ_NUMBER), &set, &Return::new(&current)],
            ),
            &Method::new(
                "_SRS".into(),
                1,
                true,
                vec![&CreateDWordField::new(&number, &Arg(0), &IRQ_NUMBER), &Store::new(register, &number)],
            ),
        ],
    )
    .to_aml_bytes(sink);
}

/// The configuration space window, which is not RAM and not a BAR, and fw_cfg.
fn motherboard(sink: &mut dyn AmlSink) {
    Device::new(
        "ECAM".into(),
        vec![&hid("PNP0C02"), &uid(0), &resources(vec![&Memory32Fixed::new(true, ECAM, ECAM_LEN)])],
    )
    .to_aml_bytes(sink);
    Device::new(
        "FWCF".into(),
        vec![
            &Name::new("_HID".into(), &"QEMU0002"),
            &Name::new("_STA".into(), &0x0bu8),
            &resources(vec![&port(0x510, 12)]),
        ],
    )
    .to_aml_bytes(sink);
}

fn processors(sink: &mut dyn AmlSink, cpus: u8) {
    for cpu in 0..cpus {
        let name = format!("C{cpu:03X}");
        Device::new(name.as_str().into(), vec![&Name::new("_HID".into(), &"ACPI0007"), &uid(cpu)])
            .to_aml_bytes(sink);
    }
}
