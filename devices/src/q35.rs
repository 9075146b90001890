//! The Q35 chipset: host bridge, LPC bridge, root ports, interrupt routing.
