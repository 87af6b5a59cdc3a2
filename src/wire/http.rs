//! HTTP/1.1 as the WireServer and IMDS speak it.
