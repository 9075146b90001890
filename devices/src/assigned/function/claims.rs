//! What a function decodes, from its registers.

use std::sync::Arc;

use trapline_io::device::{Claim, Direct, DirectKind, Range, Retire};
use trapline_io::window::{Mode, Window};
use trapline_io::{Gpa, Region, Span, Width};

use super::Function;
use crate::assigned::backend::Backend;
use crate::assigned::msix::{self, Area};
use crate::legacy;
use crate::pci::spec;
use crate::seen::Mark;

/// Memory slots have whole pages.
pub(super) const PAGE: u64 = 4096;

impl<B: Backend> Function<B> {
    /// The ranges, overlays first.
    pub(super) fn ranges(&self) -> Vec<Claim> {
        let mut ranges = Vec::new();
        self.claim_repeats(&mut ranges);
        self.claim_quirks(&mut ranges);
        if !self.config.asleep() {
            self.claim_legacy(&mut ranges);
        }
        self.claim_msix(&mut ranges);
        for bar in 0..6 {
            self.claim_bar(bar, &mut ranges);
        }
        self.claim_rom(&mut ranges);
        ranges
    }

    /// Whether a write to configuration space may change the ranges, or whether the device masters the bus. While
    /// a driver runs most do not: Linux writes MSI's control with each message that it moves, and a driver in user
    /// space keeps the line off and lets it on again with each interrupt.
    pub(super) fn config_changes_map(&self, at: u16, width: Width, value: u64) -> bool {
        let topology = self.topology();
        (at..).zip(value.to_le_bytes()).take(width.bytes()).any(|(at, new)| {
            let changed = self.config.space().byte(at) ^ new;
            topology.contains(at.into()) && self.decisive(at).is_none_or(|bits| changed & bits != 0)
        })
    }

    /// The bits of a byte of configuration space of which a change may change the map; `None` where any write may.
    fn decisive(&self, at: u16) -> Option<u8> {
        const DECODE_AND_MASTER: u8 = 7;
        const INTERRUPT_DISABLE: u8 = 1 << 2;
        const UPPER: u16 = spec::COMMAND + 1;
        match at {
            spec::COMMAND => Some(DECODE_AND_MASTER),
            // What the kernel writes goes by whether the line is in use, and when writes to BARs retire.
            UPPER if self.mode() != Mode::Native || self.repeats.signals().next().is_some() => {
                Some(INTERRUPT_DISABLE)
            }
            UPPER => Some(0),
            _ if at & !1 == spec::STATUS => Some(0),
            _ if self.config.topology().contains(at.into()) => None,
            _ => self.config.chooses(at),
        }
    }

    fn claim_legacy(&self, ranges: &mut Vec<Claim>) {
        let command = self.config.space().command();
        match &self.owner {
            Some(owner) => ranges.extend(owner.claims(command)),
            None if self.has_vga() => ranges.extend(legacy::claims(command)),
            None => {}
        }
    }

    /// The table and the pending bits over their BARs. What the device has there stays hidden, and the
    /// pages that hold them are never mapped: a slot has whole pages only.
    fn claim_msix(&self, ranges: &mut Vec<Claim>) {
        let Some(msix) = &self.interrupts.msix else { return };
        ranges.extend(self.overlay(msix.table, msix::TABLE));
        ranges.extend(self.overlay(msix.pending, msix::PENDING));
    }

    fn overlay(&self, area: Area, region: Region) -> Option<Claim> {
        let Some(Range::Memory(bar)) = self.config.decoded(area.bar) else { return None };
        let first = bar.first().0.checked_add(area.offset).map(Gpa)?;
        let span = Span::of_len(first, area.len)?.intersection(bar)?;
        Some(Claim::region(Range::Memory(span), region, 0))
    }

    fn claim_bar(&self, index: u8, ranges: &mut Vec<Claim>) {
        let Some(range) = self.config.decoded(index) else { return };
        let region = Region::bar(index);
        if self.mode() != Mode::Native {
            let retire = self.retire_bar(range);
            return ranges.push(Claim::region(range, region, 0).retire(retire));
        }
        if let Range::Memory(bar) = range
            && self.backend.region(region).writable
            && bar.first().0.is_multiple_of(PAGE)
        {
            for mapping in &self.backend.region(region).mappings {
                let first = bar.first().0.checked_add(mapping.offset).map(Gpa);
                let span = first.and_then(|first| Span::of_len(first, mapping.len));
                let Some(span) = span.and_then(|span| span.intersection(bar)) else { continue };
                let memory = Arc::clone(&mapping.memory);
                let direct = Direct { memory, offset: mapping.at, kind: DirectKind::Bar };
                ranges.push(Claim::region(Range::Memory(span), region, mapping.offset).direct(direct));
            }
        }
        ranges.push(Claim::region(range, region, 0));
    }

    /// When writes to a BAR retire in the legacy phase, where no page of one is mapped.
    fn retire_bar(&self, range: Range) -> Retire {
        match range {
            _ if self.mode() == Mode::Shadowed => Retire::Topology,
            // The end of the interrupt would unmask the line before the device saw its acknowledge.
            Range::Memory(_) if self.interrupts.by_line(self.config.space()) => Retire::Strict,
            Range::Memory(_) => Retire::Posted,
            Range::Ports(_) => Retire::Strict,
        }
    }

    fn claim_rom(&self, ranges: &mut Vec<Claim>) {
        let (Some(rom), Some(range)) = (&self.rom, self.config.decoded(6)) else { return };
        self.seen.note(Mark::Rom);
        let direct = Direct { memory: Arc::clone(rom.memory()), offset: 0, kind: DirectKind::Rom };
        ranges.push(Claim::region(range, Region::ROM, 0).direct(direct));
    }
}
