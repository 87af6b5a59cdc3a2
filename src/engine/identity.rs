//! What the platform says the VM shall be.
