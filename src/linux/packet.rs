//! Ethernet frames over AF_PACKET.
