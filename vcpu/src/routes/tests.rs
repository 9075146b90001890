use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// Which of KVM's chips an entry leads to.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Chip {
    Master,
    Slave,
    IoApic,
    Message,
}

/// Looks for what the kernel refuses; gives the GSI that an acknowledged input is followed back to.
fn acknowledged(table: &Table) -> BTreeMap<(bool, u32), u32> {
    let mut there = HashSet::new();
    let mut back = BTreeMap::new();
    for Entry { gsi, leads } in table.entries() {
        let (chip, input) = match leads {
            Leads::Pic(input @ 0..8) => (Chip::Master, Some((false, input))),
            Leads::Pic(input) => (Chip::Slave, Some((false, input))),
            Leads::IoApic(pin) => (Chip::IoApic, Some((true, pin))),
            Leads::Message(_) => (Chip::Message, None),
        };
        back.extend(input.map(|input| (input, gsi)));
        assert!(there.insert((gsi, chip)), "GSI {gsi} leads to one chip twice");
    }
    back
}

/// All inputs that a GSI reaches.
fn reached(table: &Table, gsi: u32) -> HashSet<Leads> {
    table.entries().into_iter().filter(|entry| entry.gsi == gsi).map(|entry| entry.leads).collect()
}

fn inputs() -> impl Strategy<Value = Inputs> {
    // PIRQs, and the interrupts that firmware routes them to.
    (16..24_u32, prop_oneof![Just(None), Just(Some(10)), Just(Some(11)), Just(Some(5))])
        .prop_map(|(io_apic, pic)| Inputs { io_apic, pic })
}

#[test]
fn the_old_inputs_lead_where_firmware_says() {
    let table = Table::new(MOST);
    let pairs = |gsi, pin| HashSet::from([Leads::Pic(gsi), Leads::IoApic(pin)]);
    assert_eq!(reached(&table, 0), pairs(0, 2), "the timer");
    assert_eq!(reached(&table, 2), HashSet::new(), "the cascade");
    assert_eq!(reached(&table, 4), pairs(4, 4));
    assert_eq!(reached(&table, 15), pairs(15, 15));
    assert_eq!(reached(&table, 16), HashSet::from([Leads::IoApic(16)]));
    acknowledged(&table);
}

#[test]
fn wires_that_meet_at_the_8259_share_its_interrupt() {
    let mut table = Table::new(MOST);
    let ids: Vec<LineId> = [20, 20, 21, 22]
        .into_iter()
        .map(|io_apic| {
            let id = table.name_line();
            assert!(table.lead(id, Inputs { io_apic, pic: Some(10 + io_apic / 22) }));
            id
        })
        .collect();
    let gsis: Vec<u32> = table.ways().into_values().map(|way| way.gsi).collect();
    assert_eq!(gsis, [10, 10, 10, LEVELS + 22]);
    table.remove_line(ids[2]);
    let gsis: Vec<u32> = table.ways().into_values().map(|way| way.gsi).collect();
    assert_eq!(gsis, [LEVELS + 20, LEVELS + 20, LEVELS + 22]);
}

proptest! {
    #[test]
    fn an_acknowledgement_finds_every_line(wires in prop::collection::btree_map(16..24_u32, inputs(), 0..8)) {
        // A pin of the I/O APIC leads to one input of the 8259 at a time: that of its routing register.
        let mut table = Table::new(MOST);
        let lines: Vec<(LineId, Inputs)> = wires
            .into_iter()
            .map(|(io_apic, inputs)| (table.name_line(), Inputs { io_apic, ..inputs }))
            .collect();
        for (id, inputs) in &lines {
            table.lead(*id, *inputs);
        }
        let back = acknowledged(&table);
        for (id, inputs) in &lines {
            let gsi = table.ways()[id].gsi;
            let apart = lines.iter().all(|(_, other)| {
                other.pic.is_none() || other.pic != inputs.pic || other.io_apic == inputs.io_apic
            });
            let leads = reached(&table, gsi);
            if let Some(pic) = inputs.pic {
                prop_assert_eq!(back[&(false, pic)], gsi);
                prop_assert!(leads.contains(&Leads::Pic(pic)));
            }
            if apart {
                prop_assert_eq!(back[&(true, inputs.io_apic)], gsi);
                prop_assert!(leads.contains(&Leads::IoApic(inputs.io_apic)));
                prop_assert_eq!(leads.len(), 1 + usize::from(inputs.pic.is_some()));
            }
        }
    }

    #[test]
    fn whatever_moves_the_kernel_takes_the_table(
        moves in prop::collection::vec((0..4_usize, inputs()), 0..20),
    ) {
        let mut table = Table::new(MOST);
        let ids: Vec<LineId> = (0..4).map(|_| table.name_line()).collect();
        for (which, inputs) in moves {
            table.lead(ids[which], inputs);
            let ways = table.ways();
            prop_assert_eq!(ways[&ids[which]].inputs, inputs);
            acknowledged(&table);
            for way in ways.values().filter(|way| way.inputs.io_apic == inputs.io_apic) {
                prop_assert_eq!(way.inputs, inputs, "one wire leads one way");
            }
        }
    }

    #[test]
    fn messages_have_inputs_of_their_own(steps in prop::collection::vec((0..40_usize, any::<bool>()), 0..40)) {
        let limit = 400;
        let mut table = Table::new(limit);
        let mut taken: Vec<Vec<u32>> = Vec::new();
        for (count, give_back) in steps {
            if give_back {
                taken.pop().into_iter().flatten().for_each(|gsi| table.give_back(gsi));
                continue;
            }
            let used: usize = taken.iter().map(Vec::len).sum();
            match table.take(count) {
                Some(gsis) => {
                    prop_assert_eq!(gsis.len(), count);
                    for (n, gsi) in (1..).zip(&gsis) {
                        let message = Message { address: 0xfee0_0000, data: n };
                        prop_assert!(table.set(*gsi, message));
                        prop_assert!(!table.set(*gsi, message), "no news");
                    }
                    taken.push(gsis);
                }
                None => prop_assert!(used + count + 64 > limit, "refused {} more than {}", count, used),
            }
        }
        acknowledged(&table);
        prop_assert!(table.entries().len() <= limit);
        let all: Vec<u32> = taken.into_iter().flatten().collect();
        prop_assert!(all.iter().all(|gsi| *gsi >= MESSAGES));
        prop_assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }
}

#[test]
fn a_cleared_input_is_news_again_and_stays_taken() {
    let mut table = Table::new(MOST);
    let gsi = table.take(1).unwrap()[0];
    let message = Message { address: 0xfee0_0000, data: 1 };
    assert!(table.set(gsi, message));
    table.clear(gsi);
    assert_eq!(reached(&table, gsi), HashSet::new());
    assert!(!table.take(1).unwrap().contains(&gsi));
    assert!(table.set(gsi, message));
    // One that nobody has is not taken by this.
    table.give_back(gsi);
    table.clear(gsi);
    assert_eq!(table.take(1).unwrap(), [gsi]);
}

#[test]
fn only_a_write_to_a_local_apic_is_an_interrupt() {
    for (address, is) in [
        (0xfee0_0000, true),
        (0xfeef_fff8, true),
        (0xfed0_0000, false),
        (0xfef0_0000, false),
        (0, false),
        (0x1_fee0_0000, false),
    ] {
        assert_eq!(Message { address, data: 0 }.is_interrupt(), is, "{address:#x}");
    }
}
