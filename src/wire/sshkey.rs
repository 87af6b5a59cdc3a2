//! OpenSSH public key lines.
