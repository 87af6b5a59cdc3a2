//! The kernel's clocks and random numbers.
