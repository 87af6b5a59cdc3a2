//! The DHCP client.
