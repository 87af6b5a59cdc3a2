//! DHCP messages (RFC 2131, 2132, 3396, 3442) and Azure's option 245.
