//! Where the machine's interrupt inputs (GSIs, in KVM's words) lead: one table for the whole VM.
//!
//! ```text
//! GSI 0 to 15      the 8259 pair and the I/O APIC; 0 arrives at pin 2 of the I/O APIC, as the firmware's tables say
//! GSI 16 to 23     the I/O APIC
//! GSI 24 to 47     the level-triggered lines of assigned functions, one for each pin of the I/O APIC
//! GSI 48 and up    messages (MSI) of assigned functions
//! ```
//!
//! An assigned function's line reaches what the chipset's wire reaches: a pin of the I/O APIC, and at
//! times an input of the 8259 pair too. It has a GSI of its own, apart from that by which emulated
//! devices pull the same wire, because KVM finds the way back from an acknowledged input to *one* GSI
//! only, that of the last entry of the table which names the input. Levels of several GSIs at one
//! input are joined by KVM.
//!
//! A GSI has at most one pin of the I/O APIC. So where two wires with assigned functions are routed to
//! the same input of the 8259 pair, their functions share that interrupt's old GSI instead, as they do
//! under QEMU: right as long as the guest uses the 8259 pair. Operating systems that go over to the I/O
//! APIC switch that routing off (ACPI: `_DIS` of the link devices).

use std::collections::{BTreeMap, BTreeSet};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1 as Target, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use vmm_sys_util::errno;

/// Pins of the I/O APIC.
const PINS: u32 = 24;
/// Inputs of the 8259 pair.
const ISA: u32 = 16;
/// The input of the 8259 pair that its second half takes.
const CASCADE: u32 = 2;
/// The first GSI of level-triggered lines.
const LEVELS: u32 = PINS;
/// The first GSI of messages.
const MESSAGES: u32 = LEVELS + PINS;
/// The most entries that the kernel ever took.
const MOST: usize = 4096;

/// Where a message signalled interrupt is written, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// The address; that of a local APIC, fee00000-feefffff.
    pub address: u64,
    /// The data.
    pub data: u32,
}

impl Message {
    /// Whether it is an interrupt to a processor at all.
    pub(crate) fn is_interrupt(self) -> bool {
        self.address >> 20 == 0xfee
    }
}

/// The inputs that a wire reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Inputs {
    /// The pin of the I/O APIC, 0 to 23.
    pub io_apic: u32,
    /// The input of the 8259 pair, 0 to 15, if it reaches one.
    pub pic: Option<u32>,
}

/// The GSI that KVM asserts for a line, and what that leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) gsi: u32,
    inputs: Inputs,
}

/// Names one line of an assigned function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LineId(u64);

/// The table. A plain value; [`Table::routing`] is what KVM is told.
#[derive(Debug)]
pub(crate) struct Table {
    /// How many entries KVM takes.
    limit: usize,
    /// What each GSI from [`MESSAGES`] on leads to; the outer `None` is one that nobody has.
    messages: Vec<Option<Option<Message>>>,
    lines: BTreeMap<LineId, Inputs>,
    next_line: u64,
}

impl Table {
    /// The table of a machine without assigned functions.
    pub(crate) fn new(limit: usize) -> Table {
        Table { limit: limit.min(MOST), messages: Vec::new(), lines: BTreeMap::new(), next_line: 0 }
    }

    /// Takes `count` GSIs for messages; `None` if so many are not left.
    pub(crate) fn take(&mut self, count: usize) -> Option<Vec<u32>> {
        let fixed = (MESSAGES + ISA) as usize;
        let used = self.messages.iter().flatten().count();
        if used + count > self.limit.saturating_sub(fixed) {
            return None;
        }
        let mut taken = Vec::with_capacity(count);
        let mut index = 0;
        while taken.len() < count {
            match self.messages.get_mut(index) {
                Some(Some(_)) => {}
                Some(free) => {
                    *free = Some(None);
                    taken.push(index);
                }
                None => {
                    self.messages.push(Some(None));
                    taken.push(index);
                }
            }
            index += 1;
        }
        taken.into_iter().map(|index| u32::try_from(index).ok().map(|index| MESSAGES + index)).collect()
    }

    /// Gives a GSI back. KVM need not be told: nothing uses its entry.
    pub(crate) fn give_back(&mut self, gsi: u32) {
        if let Some(slot) = self.slot(gsi) {
            *slot = None;
        }
    }

    /// Sets where a GSI leads; true if that is news.
    pub(crate) fn set(&mut self, gsi: u32, message: Message) -> bool {
        self.slot(gsi).is_some_and(|slot| slot.replace(Some(message)) != Some(Some(message)))
    }

    /// Has a GSI lead nowhere; it stays taken.
    pub(crate) fn clear(&mut self, gsi: u32) {
        if let Some(slot) = self.slot(gsi).filter(|slot| slot.is_some()) {
            *slot = Some(None);
        }
    }

    fn slot(&mut self, gsi: u32) -> Option<&mut Option<Option<Message>>> {
        self.messages.get_mut(usize::try_from(gsi.checked_sub(MESSAGES)?).ok()?)
    }

    /// A name for a line, which is on no wire yet.
    pub(crate) fn name_line(&mut self) -> LineId {
        let id = LineId(self.next_line);
        self.next_line += 1;
        id
    }

    /// Takes a line away.
    pub(crate) fn remove_line(&mut self, id: LineId) {
        self.lines.remove(&id);
    }

    /// Says where a line leads from now on; true if that is news. Other lines on the same pin of the I/O
    /// APIC lead there too: they are on the same wire, though whoever moves them tells of each by itself.
    pub(crate) fn lead(&mut self, id: LineId, inputs: Inputs) -> bool {
        let mut news = self.lines.insert(id, inputs) != Some(inputs);
        for line in self.lines.values_mut().filter(|line| line.io_apic == inputs.io_apic) {
            news |= std::mem::replace(line, inputs) != inputs;
        }
        news
    }

    /// The inputs of the 8259 pair at which wires meet that are apart at the I/O APIC.
    fn shared(&self) -> BTreeSet<u32> {
        let mut first: BTreeMap<u32, u32> = BTreeMap::new();
        let lines = self.lines.values().filter_map(|line| Some((line.pic?, line.io_apic)));
        lines.filter(|(pic, pin)| first.entry(*pic).or_insert(*pin) != pin).map(|(pic, _)| pic).collect()
    }

    /// The way of every line.
    pub(crate) fn ways(&self) -> BTreeMap<LineId, Way> {
        let shared = self.shared();
        let gsi = |line: &Inputs| match line.pic {
            Some(pic) if shared.contains(&pic) => pic,
            _ => LEVELS + line.io_apic,
        };
        self.lines.iter().map(|(id, line)| (*id, Way { gsi: gsi(line), inputs: *line })).collect()
    }

    /// All entries, in an order that KVM finds the way back by.
    fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::with_capacity((MESSAGES + ISA) as usize + self.messages.len());
        for gsi in 0..PINS {
            entries.extend(pic(gsi).map(|leads| Entry { gsi, leads }));
            entries.extend(io_apic(gsi).map(|leads| Entry { gsi, leads }));
        }
        let shared = self.shared();
        let own: BTreeSet<Inputs> = self.lines.values().copied().collect();
        for line in own.iter().filter(|line| line.pic.is_none_or(|pic| !shared.contains(&pic))) {
            let gsi = LEVELS + line.io_apic;
            entries.push(Entry { gsi, leads: Leads::IoApic(line.io_apic) });
            entries.extend(line.pic.and_then(pic).map(|leads| Entry { gsi, leads }));
        }
        for (gsi, message) in (MESSAGES..).zip(&self.messages) {
            entries.extend(message.flatten().map(|message| Entry { gsi, leads: Leads::Message(message) }));
        }
        entries
    }

    /// The whole table, for KVM.
    ///
    /// # Errors
    /// No memory, or more entries than there may be.
    pub(crate) fn routing(&self) -> Result<KvmIrqRouting, errno::Error> {
        let entries: Vec<kvm_irq_routing_entry> = self.entries().into_iter().map(Entry::for_kvm).collect();
        KvmIrqRouting::from_entries(&entries).map_err(|_| errno::Error::new(libc::ENOSPC))
    }
}

/// What an input leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Leads {
    /// An input of the 8259 pair, 0 to 15.
    Pic(u32),
    /// A pin of the I/O APIC.
    IoApic(u32),
    /// A local APIC.
    Message(Message),
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
struct Entry {
    gsi: u32,
    leads: Leads,
}

impl Entry {
    fn for_kvm(self) -> kvm_irq_routing_entry {
        let chip = |irqchip, pin| {
            (KVM_IRQ_ROUTING_IRQCHIP, Target { irqchip: kvm_irq_routing_irqchip { irqchip, pin } })
        };
        let (type_, u) = match self.leads {
            Leads::Pic(input @ 0..8) => chip(KVM_IRQCHIP_PIC_MASTER, input),
            Leads::Pic(input) => chip(KVM_IRQCHIP_PIC_SLAVE, input - 8),
            Leads::IoApic(pin) => chip(KVM_IRQCHIP_IOAPIC, pin),
            Leads::Message(message) => {
                let half =
                    |shift: u32| u32::try_from(message.address >> shift & 0xffff_ffff).unwrap_or_default();
                let (address_lo, address_hi, data) = (half(0), half(32), message.data);
                let msi = kvm_irq_routing_msi { address_lo, address_hi, data, ..Default::default() };
                (KVM_IRQ_ROUTING_MSI, Target { msi })
            }
        };
        kvm_irq_routing_entry { gsi: self.gsi, type_, u, ..Default::default() }
    }
}

/// The pin of the I/O APIC that an old GSI reaches.
fn io_apic(gsi: u32) -> Option<Leads> {
    match gsi {
        0 => Some(Leads::IoApic(2)),
        CASCADE => None,
        pin => Some(Leads::IoApic(pin)),
    }
}

/// An input of the 8259 pair, if a wire can reach it.
fn pic(input: u32) -> Option<Leads> {
    (input != CASCADE && input < ISA).then_some(Leads::Pic(input))
}

#[cfg(test)]
mod tests;
