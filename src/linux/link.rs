//! Network links: which there are, up, down, carrier.
