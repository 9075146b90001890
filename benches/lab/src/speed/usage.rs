//! Memory and processor time of a program and its children, from `/proc`.

use std::time::Duration;

use anyhow::{Context, Result};

/// Resident memory of a program and its children, without the guest's RAM, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What is resident; pages that processes share count for each of them.
    pub resident: u64,
    /// The same, shared pages divided among those who share them.
    pub proportional: u64,
}

impl Memory {
    /// Of the process `pid` and its children, without mappings of `guest` KiB or more.
    pub fn of(pid: u32, guest: u64) -> Result<Memory> {
        let mut sum = Memory::default();
        for pid in family(pid)? {
            let one = Memory::of_one(pid, guest)?;
            sum.resident += one.resident;
            sum.proportional += one.proportional;
        }
        Ok(sum)
    }

    /// The same of one process, without its children.
    pub fn of_one(pid: u32, guest: u64) -> Result<Memory> {
        let path = format!("/proc/{pid}/smaps");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(Memory::parse(&text, guest))
    }

    fn parse(smaps: &str, guest: u64) -> Memory {
        let mut sum = Memory::default();
        let mut counts = true;
        for line in smaps.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(key), Some(value)) = (words.next(), words.next()) else { continue };
            let Ok(value) = value.parse::<u64>() else { continue };
            match key {
                // The first of a mapping's values.
                "Size:" => counts = value < guest,
                "Rss:" if counts => sum.resident += value,
                "Pss:" if counts => sum.proportional += value,
                _ => {}
            }
        }
        sum
    }
}

/// The process and its children.
fn family(pid: u32) -> Result<Vec<u32>> {
    let mut family = vec![pid];
    let folder = format!("/proc/{pid}/task");
    for task in std::fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        let children = task.context("a task is gone")?.path().join("children");
        let text = std::fs::read_to_string(children).unwrap_or_default();
        family.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(family)
}

/// Processor time of a process that was not waited for yet, and of its children that ended.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = ticks(&text).with_context(|| format!("{path} is not what it was"))?;
    let hertz = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_secs(ticks) / u32::try_from(hertz).unwrap_or(100))
}

/// User and system time, its own and its children's: fields 14 to 17.
fn ticks(stat: &str) -> Option<u64> {
    // The name, which may hold anything, ends at the last parenthesis.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').skip(11).take(4).map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_memory_does_not_count() {
        let smaps = "7f00-7f10 rw-p 00000000 00:00 0 \nSize: 262144 kB\nRss: 6144 kB\nPss: 6144 kB\n\
                     7f20-7f30 r-xp 00000000 08:01 12 /usr/lib/libc.so.6\nSize: 2000 kB\nKernelPageSize: 4 kB\n\
                     Rss: 1000 kB\nPss: 30 kB\nVmFlags: rd ex\n";
        assert_eq!(Memory::parse(smaps, 262_144), Memory { resident: 1000, proportional: 30 });
        assert_eq!(Memory::parse(smaps, 262_145).resident, 7144);
    }

    #[test]
    fn this_process_uses_memory() {
        let memory = Memory::of(std::process::id(), u64::MAX).unwrap();
        assert!(memory.resident > 100 && memory.proportional <= memory.resident, "{memory:?}");
    }

    #[test]
    fn times_stand_behind_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 90 0 0 0 10 20 3 4 20 0 1 0";
        assert_eq!(ticks(stat), Some(37));
        assert_eq!(ticks("7 (a) S"), Some(0));
        assert_eq!(ticks(""), None);
    }
}
